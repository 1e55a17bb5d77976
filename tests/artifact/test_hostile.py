"""A saved network of a stranger: one line, nothing set, nothing overwritten, nothing shown raw."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as serialised
from torch import Tensor, nn

from lcprune._files import sealed_json
from lcprune._lock import locked
from lcprune.artifact import ARTIFACT, BUFFERS, NEW, PLAN, WEIGHTS, load, read_plan, save
from lcprune.errors import InputError, RunError, WeightsError
from lcprune.ranking import Plan
from lcprune.slimming import slim

ESCAPES = "\x1b]0;title\x07\x1b[2J\r\n\u202egone\u2066"


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.width = 4
        self.weight = nn.Parameter(torch.rand(4, 3, generator=generator))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("mask", torch.full((4,), float("-inf")))
        self.register_buffer("cache", torch.arange(3.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def write(directory: Path, seed: int = 0) -> Path:
    save(Net(seed), directory, plan=Plan({}), example_input=torch.ones(1, 3))
    return directory


def tampered(directory: Path, **changes: Any) -> None:
    values = json.loads((directory / ARTIFACT).read_text())
    del values["checksum"]
    (directory / ARTIFACT).write_text(sealed_json(values | changes))


def replaced(directory: Path, name: str, content: bytes) -> None:
    """Another file, with its right hash."""
    (directory / name).write_bytes(content)
    hashes = json.loads((directory / ARTIFACT).read_text())["sha256"]
    tampered(directory, sha256=hashes | {name: hashlib.sha256(content).hexdigest()})


def check_refused(directory: Path, match: str | None = None) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load(directory, Net(1))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_network_that_is_no_numbers_is_neither_saved_nor_loaded(
    tmp_path: Path, value: float
) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        model = Net().to(dtype)
        with torch.no_grad():
            model.weight[1, 2] = value
        with pytest.raises(InputError, match="weight of the model holds values that are not fin"):
            save(model, tmp_path / "x", plan=Plan({}), example_input=torch.ones(1, 3, dtype=dtype))
        assert not (tmp_path / "x").exists()
        out = write(tmp_path / "out")
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        replaced(out, WEIGHTS, serialised(state))
        with pytest.raises(WeightsError, match=r"weight in .* holds values that are not finite"):
            load(out, Net())
    model = Net()
    model.mean.fill_(float("nan"))
    with pytest.raises(InputError, match="mean of the model"):
        save(model, tmp_path / "x", plan=Plan({}), example_input=torch.ones(1, 3))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(4, 3, dtype=torch.int64), torch.ones(4, 3, dtype=torch.bool),
        torch.ones(4, 3, dtype=torch.uint8), torch.ones(4, 3, dtype=torch.complex64),
        torch.ones(3, 4), torch.ones(4), torch.ones(()), torch.ones(0, 3),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)}",
)  # fmt: skip
def test_a_stored_tensor_of_another_kind_is_named(tmp_path: Path, tensor: Tensor) -> None:
    out = write(tmp_path)
    replaced(out, WEIGHTS, serialised(Net().state_dict() | {"weight": tensor}))
    check_refused(out, "weight")


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "a.b", "weight", "forward", "__class__", "training", "_modules", "mask", "x y",
        "a-b", "state_dict", "_parameters.weight", "\x1b[2J", "__dict__", "width",
    ],
)  # fmt: skip
def test_security_a_stored_buffer_takes_no_other_name(tmp_path: Path, name: str) -> None:
    out = write(tmp_path)
    replaced(out, BUFFERS, serialised({name: torch.ones(2)}))
    check_refused(out, "is no such buffer here|hold")


EDITS = [
    ("", "forward", None, 1), ("", "training", None, 0), ("", "__class__", None, 1),
    ("", "_modules", None, 1), ("", "eval", None, 1), ("", "weight", None, 1),
    ("", "mean", None, 1), ("", "width", None, 5), ("", ESCAPES, None, 1), (ESCAPES, "a", None, 1),
    ("", "width", 0, 1), ("", "width", None, -1), ("", "width", None, True),
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=ascii)
def test_security_a_plan_of_an_artifact_sets_nothing_but_sizes(
    tmp_path: Path, edit: tuple[Any, ...]
) -> None:
    out = write(tmp_path)
    raw = json.loads((out / PLAN).read_text()) | {"attributes": [list(edit)]}
    replaced(out, PLAN, json.dumps(raw).encode())
    check_refused(out, r"plan\.json")


def test_a_plan_of_another_network_is_not_loaded(tmp_path: Path) -> None:
    out = write(tmp_path)
    raw = json.loads((out / PLAN).read_text()) | {"network": "0" * 64}
    replaced(out, PLAN, json.dumps(raw).encode())
    check_refused(out, "for another network")


@pytest.mark.parametrize(
    "changes",
    [
        {"factory": ESCAPES}, {"factory": f"a:{ESCAPES}"}, {"classes": ESCAPES},
        {"example": ESCAPES}, {"versions": ESCAPES}, {"sha256": {ESCAPES: ESCAPES}},
        {"complex": ESCAPES}, {"schema": 9, "versions": {"lcprune": ESCAPES}},
        {"factory": "digits_resnet", "example": {"args": [{ESCAPES: 1}], "kwargs": {}}},
    ],
    ids=ascii,
)  # fmt: skip
def test_security_escapes_of_an_artifact_reach_no_terminal(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = write(tmp_path)
    tampered(out, **changes)
    with pytest.raises(InputError) as caught:
        load(out)
    assert str(caught.value).isprintable()


def test_security_escapes_of_a_version_reach_no_terminal(tmp_path: Path) -> None:
    from lcprune.models import build

    model = build("digits_resnet", classes=4, input_shape=(1, 8, 8))
    x = torch.ones(1, 1, 8, 8)
    save(model, tmp_path, plan=Plan({}), example_input=x, factory="digits_resnet")
    tampered(tmp_path, versions={"lcprune": f"9.{ESCAPES}"})
    with pytest.warns(UserWarning, match="was saved with lcprune 9") as caught:
        load(tmp_path)
    assert str(caught[0].message).isprintable()


@pytest.mark.parametrize("name", [ARTIFACT, PLAN, WEIGHTS, BUFFERS, PLAN + NEW, WEIGHTS + NEW])
@pytest.mark.parametrize("there", ["a file", "nothing", "itself"])
def test_security_no_link_is_followed_where_a_network_is_written(
    tmp_path: Path, name: str, there: str
) -> None:
    out = write(tmp_path / "out", 1)
    (out / name).unlink(missing_ok=True)
    victim = tmp_path / "victim"
    if there == "a file":
        victim.write_text("mine")
    (out / name).symlink_to(out / name if there == "itself" else victim)
    write(out, 2)
    assert victim.read_text() == "mine" if there == "a file" else not victim.exists()
    assert not [path for path in out.iterdir() if path.is_symlink()]
    assert torch.equal(load(out, Net()).weight, Net(2).weight)


def test_two_processes_do_not_save_to_one_directory_at_once(tmp_path: Path) -> None:
    out = write(tmp_path / "out", 1)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        with locked(out / ".partial-artifact.lock", str(out)):
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        with pytest.raises(RunError, match="held by"):
            write(out, 2)
        left = {path.name: path.read_bytes() for path in out.iterdir()}
        assert before.items() <= left.items()
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
    write(out, 2)
    assert torch.equal(load(out, Net()).weight, Net(2).weight)


@pytest.mark.parametrize("wrong", [None, 3, b"out", ["out"], "", "a\0b", "~nosuchuserhere/out"])
def test_what_is_no_directory_is_refused(wrong: Any) -> None:
    for act in (
        lambda: save(Net(), wrong, plan=Plan({}), example_input=torch.ones(1, 3)),
        lambda: load(wrong),
        lambda: read_plan(wrong),
    ):
        with pytest.raises(InputError, match="the directory is"):
            act()


def test_arguments_of_a_wrong_kind_are_refused(tmp_path: Path) -> None:
    x = torch.ones(1, 3)
    with pytest.raises(InputError, match="expected a Plan"):
        save(Net(), tmp_path / "x", plan=None, example_input=x)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
        save({}, tmp_path / "x", plan=Plan({}), example_input=x)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected"):
        save(Net(), tmp_path / "x", plan=Plan({}))
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
        load(write(tmp_path / "out"), Net)  # type: ignore[arg-type]


def test_a_path_may_be_a_text_or_anything_of_a_path(tmp_path: Path) -> None:
    plan = Plan({("weight", 0): (0, 2), ("mean", 0): (0, 2), ("mask", 0): (0, 2)})
    small = slim(Net(), plan)
    save(small, str(tmp_path / "out"), plan=plan, example_input=torch.ones(1, 3))
    for directory in (str(tmp_path / "out"), tmp_path / "out"):
        assert torch.equal(load(directory, Net(1)).weight, small.weight)


class Normed(nn.Module):
    """As trained: its norm has statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out.mean((2, 3))


def normed(out: Path) -> dict[str, Tensor]:
    save(Normed(), out, plan=Plan({}), example_input=torch.ones(1, 1, 4, 4))
    return {name: value.clone() for name, value in Normed().state_dict().items()}


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_statistics_that_are_no_numbers_are_neither_saved_nor_loaded(
    tmp_path: Path, name: str, value: float
) -> None:
    state = normed(tmp_path / "out")
    state[f"norm.{name}"][1] = value
    replaced(tmp_path / "out", WEIGHTS, serialised(state))
    with pytest.raises(WeightsError, match=f"norm.{name} in .* not finite"):
        load(tmp_path / "out", Normed())
    model = Normed()
    model.load_state_dict(state)
    with pytest.raises(InputError, match=f"norm.{name} of the model .* not finite"):
        save(model, tmp_path / "x", plan=Plan({}), example_input=torch.ones(1, 1, 4, 4))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["conv.bias", "conv.weight", "norm.running_mean", "norm.weight"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.float8_e4m3fn])
def test_types_that_do_not_go_together_are_refused(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    state = normed(tmp_path / "out")
    replaced(tmp_path / "out", WEIGHTS, serialised({**state, name: state[name].to(dtype)}))
    with pytest.raises(WeightsError, match="expected one type"):
        load(tmp_path / "out", Normed())


def test_a_norm_may_keep_its_precision_among_halves(tmp_path: Path) -> None:
    model = Normed()
    model.conv.half()
    save(
        model,
        tmp_path / "out",
        plan=Plan({}),
        example_input=torch.ones(1, 1, 4, 4).half(),
        classes=4,
    )
    small = load(tmp_path / "out", Normed())
    assert (small.conv.weight.dtype, small.norm.weight.dtype) == (torch.float16, torch.float32)


def test_a_network_that_has_no_shape_yet_is_not_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyConv2d(2, 3))
    with pytest.raises(InputError, match="not initialised yet"):
        save(model, tmp_path / "x", plan=Plan({}), example_input=torch.ones(1, 1, 4, 4))
