from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lcprune.artifact import ARTIFACT, PLAN, WEIGHTS, load, save, sha256_of
from lcprune.errors import InputError, WeightsError
from lcprune.ranking import AttributeEdit, Plan
from lcprune.slimming import slim


class Net(nn.Module):
    """Two convolutions whose middle channels go, and a head used twice under two names."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, classes, 3)
        self.head = nn.Linear(classes, classes, bias=False)
        self.again = nn.Linear(classes, classes, bias=False)
        self.again.weight = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.norm(self.conv1(x)).relu()).mean((2, 3))
        return self.again(self.head(x))


KEPT = (0, 2, 5)
PLAN_OF_NET = Plan(
    kept={
        ("conv1.weight", 0): KEPT,
        ("conv1.bias", 0): KEPT,
        ("norm.weight", 0): KEPT,
        ("norm.bias", 0): KEPT,
        ("norm.running_mean", 0): KEPT,
        ("norm.running_var", 0): KEPT,
        ("conv2.weight", 1): KEPT,
    },
    attributes=(
        AttributeEdit("conv1", "out_channels", None, 3),
        AttributeEdit("norm", "num_features", None, 3),
        AttributeEdit("conv2", "in_channels", None, 3),
    ),
    criterion="l2",
    compensation="additive",
    cost={"macs": 1, "params": 2},
)


def make(seed: int = 0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


@pytest.fixture
def example() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def saved(tmp_path: Path, example: Tensor) -> Path:
    save(slim(make(), PLAN_OF_NET), tmp_path / "out", plan=PLAN_OF_NET, example_input=example)
    return tmp_path / "out"


def test_a_saved_model_comes_back_exactly(saved: Path, example: Tensor) -> None:
    small = slim(make(), PLAN_OF_NET).eval()
    other = make(1)
    state = {name: value.clone() for name, value in other.state_dict().items()}
    back = load(saved, other)
    assert not back.training
    assert torch.equal(back(example), small(example))
    for name, value in small.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
    assert all(torch.equal(other.state_dict()[name], state[name]) for name in state)


def test_tied_tensors_stay_tied(saved: Path) -> None:
    back = load(saved, make(1))
    assert back.head.weight is back.again.weight
    assert len(list(back.parameters())) == len(list(make().parameters()))


def test_a_model_that_is_not_tied_does_not_fit(saved: Path) -> None:
    untied = make(1)
    untied.again.weight = nn.Parameter(untied.again.weight.detach().clone())
    with pytest.raises(WeightsError, match=r"(head|again)\.weight"):
        load(saved, untied)


def test_precision_and_layout_are_kept(tmp_path: Path, example: Tensor) -> None:
    small = slim(make(), PLAN_OF_NET).double().to(memory_format=torch.channels_last)
    with torch.no_grad():
        small.conv1.weight.mul_(1 + 1e-12)
    save(small, tmp_path, plan=PLAN_OF_NET, example_input=example.double())
    back = load(tmp_path, make(1))
    assert back.conv1.weight.dtype is torch.float64
    assert torch.equal(back.conv1.weight, small.conv1.weight)
    assert back.norm.num_batches_tracked.dtype is torch.int64


def test_the_mode_of_the_model_is_left_alone(tmp_path: Path, example: Tensor) -> None:
    small = slim(make(), PLAN_OF_NET).train()
    small.norm.eval()
    before = {name: value.clone() for name, value in small.state_dict().items()}
    save(small, tmp_path, plan=PLAN_OF_NET, example_input=example)
    assert small.training
    assert small.conv1.training
    assert not small.norm.training
    assert all(torch.equal(small.state_dict()[name], before[name]) for name in before)


def test_the_description_says_what_is_needed(saved: Path) -> None:
    description = json.loads((saved / ARTIFACT).read_text())
    assert description["classes"] == 4
    assert description["inputs"] == [{"shape": [1, 3, 8, 8], "dtype": "float32"}]
    assert description["sha256"] == {name: sha256_of(saved / name) for name in (PLAN, WEIGHTS)}
    assert sorted(p.name for p in saved.iterdir()) == sorted([ARTIFACT, PLAN, WEIGHTS])


def test_files_have_the_permissions_of_any_new_file(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for path in saved.iterdir():
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_same_model_gives_the_same_bytes(saved: Path, tmp_path: Path, example: Tensor) -> None:
    small = slim(make(), PLAN_OF_NET)
    save(small, tmp_path / "twice", plan=PLAN_OF_NET, example_input=example)
    for name in (ARTIFACT, PLAN, WEIGHTS):
        assert (tmp_path / "twice" / name).read_bytes() == (saved / name).read_bytes()


def test_saving_over_an_earlier_model_replaces_it(saved: Path, example: Tensor) -> None:
    small = slim(make(5), PLAN_OF_NET)
    save(small, saved, plan=PLAN_OF_NET, example_input=example)
    assert torch.equal(load(saved, make()).conv1.weight, small.conv1.weight)


def test_a_failed_save_leaves_the_earlier_model(
    saved: Path, example: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    monkeypatch.setattr("safetensors.torch.save", full)
    with pytest.raises(InputError, match="No space left"):
        save(slim(make(5), PLAN_OF_NET), saved, plan=PLAN_OF_NET, example_input=example)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


def flip_last_byte(directory: Path, name: str) -> None:
    path = directory / name
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: flip_last_byte(d, WEIGHTS), "hash differs"),
        (lambda d: (d / PLAN).write_text((d / PLAN).read_text() + " "), "hash differs"),
        (lambda d: (d / PLAN).unlink(), "plan.json is missing"),
        (lambda d: (d / WEIGHTS).unlink(), "model.safetensors is missing"),
        (lambda d: (d / ARTIFACT).unlink(), "artifact.json is missing"),
        (lambda d: (d / ARTIFACT).write_text("{"), "damaged"),
        (lambda d: (d / ARTIFACT).write_text("[]"), "no schema"),
        (lambda d: (d / ARTIFACT).write_text('{"schema": 9, "sha256": {}}'), "checksum differs"),
    ],
)
def test_a_damaged_directory_is_refused(
    saved: Path, harm: Callable[[Path], object], message: str
) -> None:
    harm(saved)
    with pytest.raises(InputError, match=message) as caught:
        load(saved, make())
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no saved model"):
        load(tmp_path / "nowhere", make())


def test_without_a_factory_the_model_is_wanted(saved: Path) -> None:
    with pytest.raises(InputError, match="without a factory"):
        load(saved)


def test_a_foreign_factory_runs_only_when_trusted(tmp_path: Path, example: Tensor) -> None:
    source = tmp_path / "factory.py"
    trace = tmp_path / "ran"
    source.write_text(
        "from pathlib import Path\n"
        "from torch import Tensor, nn\n"
        f"Path({str(trace)!r}).touch()\n"
        f"{inspect.getsource(Net)}\n"
        "def make(classes):\n"
        "    return Net(classes)\n"
    )
    small = slim(make(), PLAN_OF_NET)
    out = tmp_path / "out"
    save(small, out, plan=PLAN_OF_NET, example_input=example, factory=f"{source}:make")
    with pytest.raises(InputError, match="trust"):
        load(out)
    assert not trace.exists()
    assert torch.equal(load(out, make(1))(example), small.eval()(example))
    assert not trace.exists()
    back = load(out, trust_factory=True)
    assert trace.exists()
    assert torch.equal(back(example), small.eval()(example))


def test_a_model_of_another_shape_does_not_fit(saved: Path) -> None:
    wider = make()
    wider.head = nn.Linear(4, 5, bias=False)
    with pytest.raises(InputError, match="head"):
        load(saved, wider)


def test_a_state_that_is_no_tensor_is_refused(tmp_path: Path, example: Tensor) -> None:
    class Odd(Net):
        def get_extra_state(self) -> object:
            return {"anything": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    with pytest.raises(InputError, match="no tensor"):
        save(Odd(), tmp_path / "out", plan=Plan(kept={}), example_input=example)
    assert not (tmp_path / "out").exists()
