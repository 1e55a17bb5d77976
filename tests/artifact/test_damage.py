"""Whatever happens to the files of a saved model, loading it gives that model or an error."""

from __future__ import annotations

import os
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from damage import DAMAGES, Damage, flipped, trace_of
from lcprune._files import read_whole
from lcprune.artifact import ARTIFACT, BUFFERS, PLAN, WEIGHTS, load, save
from lcprune.errors import LcpruneError
from lcprune.models import build
from lcprune.ranking import AttributeEdit, Plan
from lcprune.slimming import slim

FILES = (ARTIFACT, PLAN, WEIGHTS, BUFFERS)


class Net(nn.Module):
    """Two layers and a mask that no state holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.last = nn.Linear(6, 3, bias=False)
        self.register_buffer("mask", torch.arange(6.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.get_buffer("mask")
        hidden: Tensor = self.first(x) * mask
        return self.last(hidden)


@cache
def make(seed: int) -> Net:
    """Not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def plan(kept: tuple[int, ...]) -> Plan:
    return Plan(
        kept={
            ("first.weight", 0): kept,
            ("first.bias", 0): kept,
            ("mask", 0): kept,
            ("last.weight", 1): kept,
        },
        attributes=(
            AttributeEdit("first", "out_features", None, len(kept)),
            AttributeEdit("last", "in_features", None, len(kept)),
        ),
    )


def write(directory: Path, seed: int, kept: tuple[int, ...]) -> Path:
    save(slim(make(seed), plan(kept)), directory, plan=plan(kept), example_input=torch.ones(1, 4))
    return directory


def everything(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = everything(one), everything(other)
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only to be copied."""
    return write(tmp_path_factory.mktemp("saved") / "out", 0, (0, 2, 5))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("newer") / "out", 3, (1, 2, 4))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def restored(saved: Path, work: Path) -> Path:
    """A fresh copy."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(saved, out)
    return out


MODEL = make(7)
SMALL = slim(make(0), plan((0, 2, 5)))


def error_of(directory: Path) -> str | None:
    """What loading says, or nothing where it gives the model that was saved."""
    try:
        back = load(directory, MODEL)
    except LcpruneError as error:
        text = str(error)
    else:
        assert same(back, SMALL)
        text = None
    assert same(MODEL, make(7))
    assert not trace_of(directory / ARTIFACT).exists()
    assert text is None or (str(directory) in text and "\n" not in text)
    return text


def loads_or_says_why(directory: Path, path: Path) -> bool:
    """Whether the directory loads; where it does not, that is said in a line with the file."""
    text = error_of(directory)
    assert text is None or path.name in text
    return text is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_named(saved: Path, work: Path, name: str, damage: Damage) -> None:
    out = restored(saved, work)
    damage(out / name)
    assert not loads_or_says_why(out, out / name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_named(saved: Path, work: Path, name: str) -> None:
    out = restored(saved, work)
    content = (out / name).read_bytes()
    for length in range(0, len(content), 3):
        (out / name).write_bytes(content[:length])
        assert not loads_or_says_why(out, out / name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_any_byte_flipped_is_named(saved: Path, work: Path, name: str) -> None:
    out = restored(saved, work)
    content = (out / name).read_bytes()
    generator = random.Random(0)
    unseen = []
    # Of the others the hash is that of the bytes, whatever they are.
    for place in range(0, len(content), 1 if name == ARTIFACT else 5):
        (out / name).write_bytes(content)
        flipped(out / name, place, generator.choice([1, 32, generator.randrange(1, 256)]))
        if loads_or_says_why(out, out / name):
            unseen.append(chr(content[place]))
    # Between the words of JSON one space is as good as another.
    assert not set(unseen) - ({" ", "\n"} if name == ARTIFACT else set())


@pytest.mark.parametrize("name", FILES)
def test_the_file_of_another_model_is_named(
    saved: Path, work: Path, tmp_path: Path, name: str
) -> None:
    others = [write(tmp_path / "a", 1, (0, 2, 5)), write(tmp_path / "b", 0, (1, 2, 5))]
    for other in others:
        out = restored(saved, work)
        shutil.copy(other / name, out / name)
        if name == ARTIFACT:  # it is whole, and the files that it describes are not there
            with pytest.raises(LcpruneError, match="hash differs"):
                load(out, make(7))
        elif (other / name).read_bytes() != (saved / name).read_bytes():
            assert not loads_or_says_why(out, out / name)


@settings(max_examples=100)
@given(data=st.data())
def test_files_overwritten_with_anything_never_give_another_model(
    saved: Path, work: Path, data: st.DataObject
) -> None:
    out = restored(saved, work)
    for name in data.draw(st.lists(st.sampled_from(FILES), min_size=1, unique=True)):
        content = bytearray((out / name).read_bytes())
        start = data.draw(st.integers(0, len(content)))
        piece = data.draw(st.binary(max_size=60))
        content[start : start + data.draw(st.integers(0, 60))] = piece
        (out / name).write_bytes(content)
    error_of(out)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads it all")
@pytest.mark.parametrize("name", FILES)
def test_a_file_without_permission_is_named(saved: Path, work: Path, name: str) -> None:
    out = restored(saved, work)
    (out / name).chmod(0)
    assert not loads_or_says_why(out, out / name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_the_system_refuses_is_named(
    saved: Path, work: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = restored(saved, work)
    whole = os.open

    def refuse(path: Path, *rest: Any, **named: Any) -> int:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied")
        return whole(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    assert not loads_or_says_why(out, out / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_not_waited_for(saved: Path, work: Path, name: str) -> None:
    out = restored(saved, work)
    (out / name).unlink()
    os.mkfifo(out / name)
    assert not loads_or_says_why(out, out / name)


@pytest.mark.parametrize("name", FILES)
def test_a_model_that_is_replaced_while_it_is_read_is_the_old_one_or_an_error(
    saved: Path, work: Path, newer: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that is read next is the new one from some moment on."""
    out = restored(saved, work)
    replaced = []

    def read(path: Path, **named: Any) -> bytes:
        content = read_whole(path, **named)
        if path == out / name:
            replaced.append(name)
            for each in FILES:
                shutil.copy(newer / each, out / each)
        return content

    for module in ("lcprune._files", "lcprune.artifact._description"):
        monkeypatch.setattr(f"{module}.read_whole", lambda path, *_, **how: read(path, **how))
    assert "hash differs" in (error_of(out) or "hash differs")
    assert replaced


@pytest.mark.parametrize("of_new", range(2 ** len(FILES)))
def test_some_files_of_an_older_model_and_some_of_a_newer_are_no_model(
    saved: Path, work: Path, newer: Path, of_new: int
) -> None:
    out = restored(saved, work)
    chosen = [name for bit, name in enumerate(FILES) if of_new & 1 << bit]
    for name in chosen:
        shutil.copy(newer / name, out / name)
    if len(chosen) == len(FILES):
        assert same(load(out, MODEL), slim(make(3), plan((1, 2, 4))))
    else:
        assert (error_of(out) is None) == (not chosen)


def test_nothing_of_a_factory_runs_for_a_damaged_model(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    source = tmp_path / "factory.py"
    source.write_text(
        "from pathlib import Path\n"
        "from lcprune.models import build\n"
        "def make(classes, input_shape):\n"
        f"    Path({str(trace)!r}).touch()\n"
        "    return build('digits_resnet', classes=classes, input_shape=input_shape)\n"
    )
    model = build("digits_resnet", classes=4, input_shape=(1, 8, 8))
    out = tmp_path / "out"
    x = torch.ones(1, 1, 8, 8)
    save(model, out, plan=Plan(kept={}), example_input=x, factory=f"{source}:make")
    flipped(out / WEIGHTS, -1)
    with pytest.raises(LcpruneError, match="hash differs"):
        load(out, trust_factory=True)
    assert not trace.exists()
    flipped(out / WEIGHTS, -1)
    assert same(load(out, trust_factory=True), model)
    assert trace.exists()
