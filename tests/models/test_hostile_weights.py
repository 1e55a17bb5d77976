"""Weights of every strange kind are one line, before anything of the model is touched."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lcprune._text import printable
from lcprune.errors import WeightsError
from lcprune.models import load_weights, state_sha256


class Net(nn.Module):
    """A mask with infinities among its buffers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.rand(4, 3, generator=generator))
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
        self.register_buffer("index", torch.arange(3))


def state(seed: int = 1) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in Net(seed).state_dict().items()}


PLAIN = state()


def with_(key: str, value: Any) -> dict[str, Any]:
    return {**PLAIN, key: value}


def nan(shape: tuple[int, ...], value: float = float("nan")) -> Tensor:
    return torch.full(shape, value)


KEYS: dict[str, Any] = {
    "sparse": with_("weight", torch.ones(4, 3).to_sparse()),
    "compressed": with_("weight", torch.ones(4, 3).to_sparse_csr()),
    "by columns": with_("weight", torch.ones(4, 3).to_sparse_csc()),
    "sparse buffer": with_("norm.running_mean", torch.ones(4).to_sparse()),
    "quantised": with_("weight", torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8)),
    "by channel": with_(
        "weight",
        torch.quantize_per_channel(
            torch.ones(4, 3), torch.ones(4), torch.zeros(4), 0, torch.quint8
        ),
    ),
    "meta": with_("weight", torch.ones(4, 3, device="meta")),
    "nested": with_("weight", torch.nested.nested_tensor([torch.ones(3)] * 4)),
    "integers": with_("weight", torch.ones(4, 3, dtype=torch.int64)),
    "booleans": with_("weight", torch.ones(4, 3, dtype=torch.bool)),
    "bytes": with_("norm.bias", torch.ones(4, dtype=torch.uint8)),
    "complex": with_("weight", torch.ones(4, 3, dtype=torch.complex64)),
    "floats as an index": with_("index", torch.ones(3)),
    "not a number": with_("weight", nan((4, 3))),
    "infinite": with_("norm.weight", nan((4,), float("inf"))),
    "a statistic": with_("norm.running_var", nan((4,))),
    "halves": with_("weight", nan((4, 3)).half()),
    "a strange key": with_("\x1b[2J\n", torch.ones(1)),
    "a shape": with_("weight", torch.ones(3, 4)),
    "a huge view": with_("weight", torch.ones(1).expand(2**40)),
    "of no dimension": with_("weight", torch.ones(())),
}
WHOLE: dict[str, Any] = {
    "numbers as keys": {0: torch.ones(1)},
    "bytes as keys": {b"weight": torch.ones(1)},
    "none as a key": {None: torch.ones(4, 3)},
    "tuples as keys": {("weight", 0): torch.ones(1)},
    "a list": [torch.ones(1)],
    "a tensor": torch.ones(4, 3),
    "none": None,
    "a number": 3,
    "a text": "weights",
    "nothing": {},
    "nothing within": {"state_dict": {}},
    "a number within": {"state_dict": 3},
    "an optimiser's": {"optimizer": {"state": {}}, "epoch": 3},
    "deep": {"model": {"model": {"model": {"model": {"model": state()}}}}},
    "a list within": {"model": [torch.ones(1)]},
    "a text for a tensor": with_("weight", "\x1b[2J"),
}


def check_refused(path: Path, message: str | None = None) -> None:
    model = Net()
    before = state_sha256(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(WeightsError, match=message) as caught:
            load_weights(model, str(path), "own")
    assert path.name in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert state_sha256(model) == before


@pytest.mark.parametrize("name", KEYS)
def test_a_tensor_of_a_strange_kind_is_named(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(KEYS[name], tmp_path / "w.pt")
    [key] = [k for k, value in KEYS[name].items() if k not in PLAIN or value is not PLAIN[k]]
    # PyTorch reads no nested ones without code; the others are told by their names.
    check_refused(tmp_path / "w.pt", None if name == "nested" else re.escape(printable(repr(key))))


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_state_is_refused(tmp_path: Path, name: str) -> None:
    torch.save(WHOLE[name], tmp_path / "w.pt")
    check_refused(tmp_path / "w.pt")


def written(value: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def safe() -> bytes:
    from safetensors.torch import save

    return save(state())


def with_header(length: int, header: bytes = b"{}") -> bytes:
    return struct.pack("<Q", length) + header


def header_of(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return with_header(len(text), text)


def entry(shape: list[Any], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("pwned",))


def bomb(kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of PyTorch's in which one part would be 64 MB."""
    source, buffer = zipfile.ZipFile(io.BytesIO(written(state()))), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as target:
        for name in source.namelist():
            part = source.read(name)
            target.writestr(name, bytes(2**26) if name.endswith("data/0") else part)
    return buffer.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "nothing": ("w.pt", lambda: b""),
    "nothing, safe": ("w.safetensors", lambda: b""),
    "one byte": ("w.pt", lambda: b"\x80"),
    "one byte, safe": ("w.safetensors", lambda: b"\x80"),
    "noise": ("w.bin", lambda: bytes(range(256)) * 64),
    "noise, safe": ("w.safetensors", lambda: bytes(range(256)) * 64),
    "a text": ("w.pth", lambda: b"weights \x1b[2J"),
    "cut": ("w.pt", lambda: written(state())[:-400]),
    "cut in half": ("w.pt", lambda: written(state())[: len(written(state())) // 2]),
    "of old, cut": (
        "w.pt",
        lambda: written(state(), _use_new_zipfile_serialization=False)[:-30],
    ),
    "cut, safe": ("w.safetensors", lambda: safe()[:-1]),
    "cut in its header": ("w.safetensors", lambda: safe()[:40]),
    "more than it says": ("w.safetensors", lambda: safe() + b"0"),
    "a header of all memory": ("w.safetensors", lambda: with_header(2**63)),
    "a header of 1 TB": ("w.safetensors", lambda: with_header(2**40)),
    "a header of 90 MB": ("w.safetensors", lambda: with_header(90_000_000, b"{" * 90)),
    "a deep header": ("w.safetensors", lambda: with_header(50_000, b'{"a":' * 10_000)),
    "of 2^62": (
        "w.safetensors",
        lambda: header_of(weight=entry([2**31, 2**31], 0, 2**63)),
    ),
    "an overflow": ("w.safetensors", lambda: header_of(weight=entry([2**32, 2**32], 0, 0))),
    "before its start": ("w.safetensors", lambda: header_of(weight=entry([1], 8, 4)) + bytes(8)),
    "an unknown type": (
        "w.safetensors",
        lambda: header_of(w=entry([1], 0, 4, "X9")) + bytes(4),
    ),
    "a pickle": ("w.pt", lambda: pickle.dumps(state())),
    "code": ("w.pt", lambda: written({"weight": Evil()})),
    "code of old": ("w.pt", lambda: written(Evil(), _use_new_zipfile_serialization=False)),
    "a module": ("w.pt", lambda: written(Net())),
    "a module within": ("w.pt", lambda: written({"model": Net()})),
    "code, safe": ("w.safetensors", lambda: written({"weight": Evil()})),
    "a bomb": ("w.pt", bomb),
    "an archive of something": ("w.pt", lambda: zipped({"a.txt": b"text"})),
    "an empty archive": ("w.pt", lambda: zipped({})),
    "an archive that lies": ("w.pt", lambda: bomb().replace(b"data.pkl", b"data.pkx")),
}


def zipped(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_security_a_file_that_holds_no_weights_is_one_line_and_runs_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, content = FILES[name]
    (tmp_path / file).write_bytes(content())
    check_refused(tmp_path / file)
    assert not (tmp_path / "pwned").exists()


def test_security_an_archive_is_measured_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.pt").write_bytes(bomb())
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    check_refused(tmp_path / "w.pt", "unpacks to")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_what_is_no_ordinary_file_is_never_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    check_refused(tmp_path / name, "not an ordinary file")
    (tmp_path / "folder.pt").mkdir()
    check_refused(tmp_path / "folder.pt")
    check_refused(tmp_path / "absent.pt", "no such file")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    check_refused(tmp_path / "loop.pt")


@pytest.mark.parametrize("weights", ["~nosuchuserhere/w.pt", "a\0b", "x" * 5000 + ".pt", "", "/"])
def test_names_of_no_file_are_refused(weights: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights(Net(), weights, "own")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("weights", [None, 3, Path("w.pt"), {"weight": 1}, b"w.pt"])
def test_weights_are_named_by_a_text(weights: Any) -> None:
    with pytest.raises(WeightsError, match="weights is"):
        load_weights(Net(), weights, "own")


GOOD: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda s: s,
    "ordered": OrderedDict,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"lr": 0.1}},
    "model": lambda s: {"model": s, "args": {"lr": 0.1}},
    "within one another": lambda s: {"model": {"state_dict": s}},
    "DDP": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "both": lambda s: {"model": {f"module._orig_mod.{k}": v for k, v in s.items()}},
    "both, turned": lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    "a trainer's": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
    "parameters": lambda s: s | {"weight": nn.Parameter(s["weight"])},
    "other precision": lambda s: s | {"weight": s["weight"].double(), "index": s["index"].int()},
    "views": lambda s: {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in s.items()},
    "a counter of floats": lambda s: s | {"norm.num_batches_tracked": torch.tensor(3.0)},
    "no counter": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_what_trainers_save_loads(tmp_path: Path, name: str, old: bool) -> None:
    source = state()
    torch.save(GOOD[name](source), tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
    model = Net()
    load_weights(model, str(tmp_path / "w.pt"), "own")
    for key, value in model.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, source[key]), key


def test_names_that_the_network_has_are_no_prefix(tmp_path: Path) -> None:
    model = nn.Module()
    model.model = nn.Linear(2, 2)
    save_file(nn.ModuleDict({"model": nn.Linear(2, 2)}).state_dict(), tmp_path / "w.safetensors")
    load_weights(model, str(tmp_path / "w.safetensors"), "own")


def test_a_mask_of_infinities_is_the_networks_own(tmp_path: Path) -> None:
    save_file(with_("mask", Net().mask * 1), tmp_path / "w.safetensors")
    load_weights(Net(), str(tmp_path / "w.safetensors"), "own")
    save_file(with_("norm.running_mean", nan((4,), float("-inf"))), tmp_path / "w.safetensors")
    check_refused(tmp_path / "w.safetensors", "not finite")
