from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lcprune._files import sealed_json, sha256_of
from lcprune.artifact import ARTIFACT, BUFFERS, NEW, PLAN, WEIGHTS, load, read_plan, save
from lcprune.errors import InputError, LcpruneError, ModelError, WeightsError
from lcprune.models import build
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
    image = {"tensor": [1, 3, 8, 8], "dtype": "float32"}
    assert description["example"] == {"args": [image], "kwargs": {}}
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
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        save(slim(make(5), PLAN_OF_NET), saved, plan=PLAN_OF_NET, example_input=example)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


class WithBuffer(Net):
    """The same with a buffer that no state holds, so that there is one more file."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.arange(6.0), persistent=False)


STEPS = (
    *((Path, name) for name in ("write_bytes", "write_text", "replace", "unlink")),
    (os, "fsync"),
)
"""What changes what is on disk, or waits for it."""


class Ending:
    """Ends the process, or fails, in place of the ``step``-th change of a file.

    With "uncommitted" for a step, in place of the move that gives ``artifact.json`` its name.
    """

    def __init__(self, patch: pytest.MonkeyPatch, step: int | str, how: str) -> None:
        self._step = step
        self._how = how
        self._taken = 0
        self.is_over = False
        for owner, name in STEPS:
            patch.setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **named: Any) -> Any:
            commits = len(args) == 2 and getattr(args[1], "name", "") == ARTIFACT
            if self._taken == self._step or (self._step == "uncommitted" and commits):
                self._taken += 1
                self.is_over = True
                if self._how == "killed":
                    os._exit(9)
                raise OSError(28, "No space left on device")
            self._taken += 1
            return real(*args, **named)

        return called


@pytest.mark.parametrize(
    ("how", "then"),
    [
        ("killed", None),
        ("failed", None),
        # The next one finds what the first left.
        pytest.param("killed", ("uncommitted", "killed"), marks=pytest.mark.thorough),
        pytest.param("killed", ("uncommitted", "failed"), marks=pytest.mark.thorough),
        pytest.param("killed", (0, "failed"), marks=pytest.mark.thorough),
    ],
)
def test_a_save_that_ends_at_any_step_leaves_the_old_model_or_the_new(
    tmp_path: Path, example: Tensor, how: str, then: tuple[int | str, str] | None
) -> None:
    """Each file of one is another than that of the other, and only one has buffers."""
    models = {"old": WithBuffer(), "new": make(5), "third": make(6)}
    found = []
    for step in range(100):
        out = tmp_path / str(step)
        save(models["old"], out, plan=Plan({}, criterion="old"), example_input=example, classes=4)
        ended = ends(out, step, how, "new", models["new"], example)
        if then is not None:
            ends(out, *then, "third", models["third"], example)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        state = load(out, make(1)).state_dict()  # and a copy that can't be written to is read
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        [name] = [
            name
            for name, model in models.items()
            if all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        ]
        assert read_plan(out).criterion == name
        found.append(name)
        if not ended:
            break
    assert not ended
    assert set(found) == {"old", "new"}
    if how != "failed":  # some failures, such as to remove what is left over, change nothing
        assert found == sorted(found, reverse=True)  # one moment at which it is the new one
        assert found.count("new") > 2  # and steps after it
    assert how != "failed" or not [p for p in out.iterdir() if p.name.endswith(NEW)]


def ends(
    out: Path, step: int | str, how: str, name: str, model: nn.Module, example: Tensor
) -> bool:
    """Save in a process that ends at a step; whether it came to that."""
    child = os.fork()
    if not child:
        code = 1
        try:
            plan = Plan({}, criterion=name)
            with pytest.MonkeyPatch.context() as patch:
                ending = Ending(patch, step, how)
                with suppress(InputError):
                    save(model, out, plan=plan, example_input=example, classes=4)
                code = 9 if ending.is_over else 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


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


class Odd(nn.Module):
    """Tensors of every kind, tied in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.twin = self.layer
        self.other = nn.Linear(3, 4, bias=False)
        self.other.weight = self.layer.weight
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.spectrum = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.register_buffer("also_empty", torch.empty(0, 3))
        self.register_buffer("phase", torch.randn(4, dtype=torch.complex128))
        self.register_buffer("flags", torch.tensor([True, False, True, True]))
        self.register_buffer("count", torch.tensor(3, dtype=torch.int16))
        self.register_buffer("halved", torch.randn(4).half())
        self.register_buffer("brain", torch.randn(4).bfloat16())
        self.register_buffer("nothing", None)
        self.register_buffer("index", torch.arange(4), persistent=False)
        self.register_buffer("expanded", torch.ones(1).expand(4), persistent=False)
        self.register_buffer("turned", torch.randn(2, 2, dtype=torch.complex64), persistent=False)
        self.register_buffer("cache", None, persistent=False)
        self.again = nn.Module()
        self.again.register_buffer("index", self.get_buffer("index"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.get_buffer("index") * self.get_buffer("expanded")
        out: Tensor = (self.twin(x) + self.other(x)) * self.scale * kept
        return out * self.spectrum.abs() * self.get_buffer("flags")


KEPT_OF_ODD = Plan(
    kept={
        (name, 0): (1, 3)
        for name in [
            *("layer.weight", "layer.bias", "spectrum", "phase", "flags", "halved", "brain"),
            *("index", "expanded"),
        ]
    },
    attributes=(
        AttributeEdit("layer", "out_features", None, 2),
        AttributeEdit("other", "out_features", None, 2),
    ),
)


def odd(seed: int) -> Odd:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Odd()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(
        [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    )


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """The same tensors, tied in the same way."""
    a, b = state_of(one), state_of(other)
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert b[name].dtype is tensor.dtype, name
        assert torch.equal(b[name], tensor), name
        ties = {key for key in a if a[key] is tensor}
        assert ties == {key for key in b if b[key] is b[name]}, name
    assert one.state_dict().keys() == other.state_dict().keys()


def test_tensors_of_every_kind_come_back(tmp_path: Path) -> None:
    small = slim(odd(0), KEPT_OF_ODD)
    small.get_buffer("index").add_(5)  # what a fresh model would not have
    small.register_buffer("cache", torch.tensor([1.5]), persistent=False)
    x = torch.ones(1, 3)
    save(small, tmp_path, plan=KEPT_OF_ODD, example_input=x)
    assert (tmp_path / BUFFERS).exists()
    other = odd(1)
    before = {name: tensor.clone() for name, tensor in state_of(other).items()}
    back = load(tmp_path, other)
    assert_same(back, small)
    assert torch.equal(back(x), small(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(other).items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_precision_of_every_tensor_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    class Positions(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("position", torch.ones(3), persistent=False)

    small = slim(Positions(), PLAN_OF_NET).to(dtype)
    save(small, tmp_path, plan=PLAN_OF_NET, example_input=torch.ones(1, 3, 8, 8, dtype=dtype))
    assert_same(load(tmp_path, Positions()), small)


def test_views_that_share_memory_come_back(tmp_path: Path) -> None:
    def shared(seed: int) -> nn.Module:
        model = nn.Module()
        memory = torch.randn(8, generator=torch.Generator().manual_seed(seed))
        model.register_buffer("all", memory)
        model.register_buffer("part", memory[2:6])
        model.register_buffer("same", memory.view(8))
        return model

    model = shared(0)
    save(model, tmp_path, plan=Plan(kept={}), example_input=torch.ones(1), classes=1)
    back = load(tmp_path, shared(1))
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)


def test_what_is_apart_does_not_fit_where_it_is_tied(tmp_path: Path, example: Tensor) -> None:
    small = slim(make(), PLAN_OF_NET)
    small.again.weight = nn.Parameter(small.again.weight.detach() + 1)
    save(small, tmp_path, plan=PLAN_OF_NET, example_input=example)
    with pytest.raises(WeightsError, match=r"head\.weight and again\.weight apart"):
        load(tmp_path, make())


def test_an_earlier_file_of_buffers_goes(tmp_path: Path, example: Tensor) -> None:
    save(slim(odd(0), KEPT_OF_ODD), tmp_path, plan=KEPT_OF_ODD, example_input=torch.ones(1, 3))
    small = slim(make(), PLAN_OF_NET)
    save(small, tmp_path, plan=PLAN_OF_NET, example_input=example)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([ARTIFACT, PLAN, WEIGHTS])
    assert_same(load(tmp_path, make(1)), small)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_user_says_who_may_read(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        small = slim(odd(0), KEPT_OF_ODD)
        save(small, tmp_path / "out", plan=KEPT_OF_ODD, example_input=torch.ones(1, 3))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {0o666 & ~mask}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_model_on_another_device_is_saved_from_there(tmp_path: Path) -> None:
    small = slim(odd(0), KEPT_OF_ODD).cuda()
    save(small, tmp_path, plan=KEPT_OF_ODD, example_input=torch.ones(1, 3))
    assert all(tensor.is_cuda for tensor in state_of(small).values())
    assert_same(load(tmp_path, odd(1)), slim(odd(0), KEPT_OF_ODD))
    assert_same(load(tmp_path, odd(1).cuda()), slim(odd(0), KEPT_OF_ODD))


def test_a_model_without_values_is_refused(tmp_path: Path, example: Tensor, saved: Path) -> None:
    with pytest.raises(InputError, match="no dense tensor with values"):
        save(Net().to("meta"), tmp_path / "a", plan=Plan(kept={}), example_input=example)
    assert not (tmp_path / "a").exists()
    with pytest.raises(ModelError, match="meta"):
        load(saved, Net().to("meta"))


def test_a_model_that_fails_on_its_input_is_refused(tmp_path: Path, example: Tensor) -> None:
    small = slim(make(), PLAN_OF_NET)
    for x in (example[:, :1], [], (example, 3), None, {"x": example}, "x", 3):
        with pytest.raises(InputError) as caught:
            save(small, tmp_path / "out", plan=PLAN_OF_NET, example_input=x)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"factory": make}, {"factory": 3}, {"classes": 0}, {"classes": "4"}, {"classes": True}],
)
def test_what_could_not_be_loaded_is_not_saved(
    tmp_path: Path, example: Tensor, wrong: dict[str, Any]
) -> None:
    small = slim(make(), PLAN_OF_NET)
    with pytest.raises(InputError, match="expected"):
        save(small, tmp_path / "out", plan=PLAN_OF_NET, example_input=example, **wrong)
    assert not (tmp_path / "out").exists()


def test_the_plan_of_another_model_is_not_saved(tmp_path: Path, example: Tensor) -> None:
    for model in (make(), build("digits_resnet", classes=4, input_shape=(3, 8, 8))):
        with pytest.raises(InputError, match=r"not that of the model.*conv1\."):
            save(model, tmp_path / "out", plan=PLAN_OF_NET, example_input=example)
    assert not (tmp_path / "out").exists()


def tampered(directory: Path, **changes: Any) -> None:
    """Another description, as whole as the first."""
    values = json.loads((directory / ARTIFACT).read_text())
    del values["checksum"]
    (directory / ARTIFACT).write_text(sealed_json(values | changes))


def planned(directory: Path, text: str) -> None:
    """Another plan, with its hash."""
    (directory / PLAN).write_text(text)
    hashes = json.loads((directory / ARTIFACT).read_text())["sha256"]
    tampered(directory, sha256=hashes | {PLAN: sha256_of(directory / PLAN)})


def keeping(tensor: object, dim: object, *indices: object) -> dict[str, Any]:
    return {"kept": [{"tensor": tensor, "dim": dim, "indices": list(indices)}]}


def setting(*edit: object) -> dict[str, Any]:
    return {"attributes": [list(edit)]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (keeping("conv9.weight", 0, *KEPT), r"conv9\.weight"),
        (keeping("conv1.weight", 4, *KEPT), r"dimension 4 of conv1\.weight"),
        (keeping("conv1.weight", -1, 0), r"dimension -1 of conv1\.weight"),
        (keeping("conv1.weight", 0, 0, 6), r"index 6 of dimension 0 of conv1\.weight"),
        (keeping("conv1.weight", 0, -1, 0), r"-1 … 0 of dimension 0 of conv1\.weight"),
        (keeping("conv1.weight", 0, 2, 2), r"2 … 2 of dimension 0 of conv1\.weight"),
        (keeping("conv1.weight", 0), r"none of dimension 0 of conv1\.weight"),
        (keeping("conv1.weight", 0, *KEPT), r"model\.safetensors|conv1"),
        (setting("conv9", "x", None, 1), "x of conv9"),
        (setting("conv1", "x", None, 1), "x of conv1"),
        (setting("conv1", "stride", 1, 1), r"stride\[1\] of conv1"),
        (setting("conv1", "groups", 0, 1), r"groups\[0\] of conv1"),
    ],
)
def test_a_plan_that_does_not_fit_names_the_tensor(
    saved: Path, changes: dict[str, Any], message: str
) -> None:
    planned(saved, json.dumps(json.loads((saved / PLAN).read_text()) | changes))
    with pytest.raises(InputError, match=message) as caught:
        load(saved, make())
    assert "\n" not in str(caught.value)
    assert str(saved / PLAN) in str(caught.value) or changes == keeping("conv1.weight", 0, *KEPT)


STRANGE = [None, True, 0, -1, 1.5, 10**30, "", "x", "\n", [], [[]], [None], {}, {"a": 1}]


@pytest.mark.parametrize("key", ["factory", "classes", "example", "sha256", "versions", "complex"])
@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_a_field_of_a_strange_type_is_an_error_of_one_line(
    tmp_path: Path, key: str, value: object
) -> None:
    x = torch.ones(1, 1, 8, 8)
    model = build("digits_resnet", classes=4, input_shape=(1, 8, 8))
    save(model, tmp_path, plan=Plan(kept={}), example_input=x, factory="digits_resnet")
    tampered(tmp_path, **{key: value})
    try:
        back = load(tmp_path)
    except LcpruneError as error:
        text = str(error)
    else:  # what says nothing of the network may be anything of its type
        text = str(tmp_path)
        assert_same(back, model)
    assert str(tmp_path) in text
    assert "\n" not in text


def test_a_later_schema_names_the_version_that_wrote_it(saved: Path) -> None:
    tampered(saved, schema=3, versions={"lcprune": "9.8.7"})
    with pytest.raises(
        InputError, match=r"schema 3, written by lcprune 9\.8\.7; expected schema 1"
    ):
        load(saved, make())
    tampered(saved, schema=3, versions=None)
    with pytest.raises(InputError, match="schema 3, written by lcprune of another version"):
        load(saved, make())


@pytest.mark.parametrize(
    ("factory", "library"),
    [("digits_resnet", "lcprune"), ("torchvision/squeezenet1_1", "torchvision")],
)
def test_another_version_of_what_builds_the_model_warns(
    tmp_path: Path, factory: str, library: str
) -> None:
    pytest.importorskip("torchvision")
    x = torch.ones(1, 3, 32, 32)
    model = build(factory, classes=4, input_shape=(3, 32, 32))
    save(model, tmp_path, plan=Plan(kept={}), example_input=x, factory=factory)
    here = json.loads((tmp_path / ARTIFACT).read_text())["versions"]
    major, minor, *_ = here[library].split(".")
    harmless = {library: f"{major}.{minor}.99+other", "torch": "0.1.0", "numpy": "x"}
    for versions in (here, here | harmless, {}):
        tampered(tmp_path, versions=versions)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_same(load(tmp_path), model)
    tampered(tmp_path, versions=here | {library: f"{major}.{int(minor) + 1}.0"})
    with pytest.warns(UserWarning, match=library) as caught:
        assert_same(load(tmp_path), model)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path, build(factory, classes=4, input_shape=(3, 32, 32)))


def test_the_factories_that_run_unasked(tmp_path: Path) -> None:
    x = torch.ones(1, 3, 32, 32)
    for factory in ("cifar_resnet20", "torchvision/squeezenet1_1", "timm/test_resnet.r160_in1k"):
        pytest.importorskip(factory.partition("/")[0] if "/" in factory else "torch")
        model = build(factory, classes=4, input_shape=(3, 32, 32))
        save(model, tmp_path, plan=Plan(kept={}), example_input=x, factory=factory)
        assert_same(load(tmp_path), model)
    for factory in ("os:getcwd", "timm/hf-hub:someone/model", "local-dir:/tmp", "a.py:f"):
        tampered(tmp_path, factory=factory)
        with pytest.raises(InputError, match="trust_factory"):
            load(tmp_path)
    for factory in ("nothing", "torchvision/nothing", "timm/nothing", "../x", ""):
        tampered(tmp_path, factory=factory)
        with pytest.raises(ModelError, match="the factory fails"):
            load(tmp_path)


@pytest.mark.parametrize("factory", ["no/such", "nothing", "resnet50", "../x", "", "a b:c", "x\ny"])
def test_a_factory_that_no_model_is_called_is_refused_before_anything_is_written(
    tmp_path: Path, factory: str
) -> None:
    x = torch.ones(1, 1, 8, 8)
    model = build("digits_resnet", classes=4, input_shape=(1, 8, 8))
    with pytest.raises(ModelError, match="unknown model") as caught:
        save(model, tmp_path / "out", plan=Plan({}), example_input=x, factory=factory)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_factory_that_fails_is_an_error_of_one_line(tmp_path: Path) -> None:
    source = tmp_path / "f.py"
    source.write_text("def make():\n    raise RuntimeError('one\\ntwo')\n")
    x = torch.ones(1, 1, 8, 8)
    model = build("digits_resnet", classes=4, input_shape=(1, 8, 8))
    save(model, tmp_path / "out", plan=Plan({}), example_input=x, factory=f"{source}:make")
    with pytest.raises(ModelError, match="one two"):
        load(tmp_path / "out", trust_factory=True)


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "artifact.md"
    _, code, *_ = page.read_text(encoding="utf-8").split("```")
    monkeypatch.chdir(tmp_path)
    exec(code.removeprefix("python"), {})
    assert (tmp_path / "out" / ARTIFACT).exists()
