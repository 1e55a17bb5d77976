"""Files for ``--weights``: tensors of every kind, and what is no file of tensors."""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import collections
import io
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing.artifacts import lying_header
from fuzzing.command_lines import NAMES, TINY
from fuzzing.hostile import bytes_of, replace_by
from fuzzing.run_directories import Mark
from fuzzing.tries import Ground, Try

SUFFIXES = (".pt", ".pth", ".safetensors", ".bin", "", ".pkl", ".PT", ".SAFETENSORS", ".ckpt")


class WeightFiles:
    """The surface."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self._ground = ground
        space: dict[str, Any] = {}
        exec(TINY, space)
        self._state = dict(space["net"]().state_dict())
        self._ways: tuple[Callable[[Path, random.Random], str], ...] = (
            self._tensor, self._tensor, self._tensor, self._tensor, self._mapping, self._mapping,
            self._bytes, self._bytes, self._pickle, self._zip, self._header, self._header, self._file,
        )  # fmt: skip

    def make(self, number: int, chance: random.Random, folder: Path) -> Try:
        """The try of this number."""
        (folder / "tiny.py").write_text(TINY)
        path = (
            folder
            / f"weights{chance.choice(SUFFIXES[:4]) if chance.random() < 0.8 else chance.choice(SUFFIXES)}"
        )
        what = self._ways[number % len(self._ways)](path, chance)
        bad = what.startswith("!")
        what = what.removeprefix("!")
        command = chance.choice(("train", "train", "train", "prune"))
        arguments = [command, "tiny.py:net", "--data", "tiny.py:data", "--weights", path.name, "--out",
                     "run", "--train-dtype", "float32", "--batch-size", "32", "--device", "cpu"]  # fmt: skip
        if command == "prune":
            arguments += ["--budget", "macs=50%", "--trials", "1", "--search-dtype", "float32",
                          "--recalibrate-images", "8", "--fitness-images", "8", "--finetune-epochs", "0"]  # fmt: skip
        else:
            arguments += ["--epochs", "1"]
            if chance.random() < 0.15:
                arguments += ["--new-head"]
        # PyTorch gives some warnings once a process, so a fork may not have them.
        real = number % 26 == 5
        what = f"{command} --weights {path.name}: {what}"
        return Try(what, tuple(arguments), bad=bad, real=real)

    def _save(self, state: Any, path: Path, chance: random.Random) -> str:
        """Write tensors as the suffix says, or as PyTorch's older format."""
        import torch
        from safetensors.torch import save_file

        if path.suffix == ".safetensors":
            try:
                save_file(state, path)
                return ""
            except Exception:  # it can hold dense tensors alone
                pass
        old = chance.random() < 0.2
        try:
            torch.save(state, path, _use_new_zipfile_serialization=not old)
        except Exception:
            torch.save(state, path)
        return ", of the old format" if old else ""

    def _tensor(self, path: Path, chance: random.Random) -> str:
        """One tensor that is no tensor of numbers as the model has them."""
        import torch

        state = dict(self._state)
        name = chance.choice(list(state))
        tensor = state[name]
        wide = tensor if tensor.dim() >= 2 else tensor.reshape(1, -1)
        kinds: dict[str, Callable[[], Any]] = {
            "!sparse": lambda: tensor.to_sparse(),
            "!sparse of its shape, empty": lambda: torch.sparse_coo_tensor(size=tensor.shape),
            "!CSR": lambda: wide.reshape(wide.shape[0], -1).to_sparse_csr(),
            "!CSC": lambda: wide.reshape(wide.shape[0], -1).to_sparse_csc(),
            "!BSR": lambda: torch.ones(4, 4).to_sparse_bsr((2, 2)),
            "!quantised": lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
            "!quantised by channel": lambda: torch.quantize_per_channel(
                wide.float(), torch.ones(len(wide)), torch.zeros(len(wide)), 0, torch.quint8
            ),
            "!meta": lambda: tensor.to("meta"),
            "integers": lambda: tensor.to(torch.int32),
            "bytes": lambda: tensor.to(torch.uint8),
            "truth": lambda: tensor.to(torch.bool),
            "half": lambda: tensor.to(torch.float16),
            "float8": lambda: tensor.to(torch.float8_e5m2),
            "double": lambda: tensor.to(torch.float64),
            "double of 1e300": lambda: torch.full_like(tensor, 1e300, dtype=torch.float64),
            "unsigned 64": lambda: torch.full(tensor.shape, 2**63, dtype=torch.uint64),
            "!complex": lambda: tensor.to(torch.complex64),
            "!complex NaN": lambda: torch.full_like(tensor, complex("nan"), dtype=torch.complex64),
            "NaN": lambda: torch.full_like(tensor, float("nan"), dtype=torch.float32),
            "one NaN": lambda: _with(tensor, float("nan")),
            "infinity": lambda: torch.full_like(tensor, float("inf"), dtype=torch.float32),
            "minus": lambda: -torch.ones(tensor.shape),
            "zeros": lambda: torch.zeros_like(tensor),
            "large": lambda: torch.full(tensor.shape, 3e38),
            "!scalar": lambda: torch.tensor(1.0) if tensor.dim() else torch.ones(1),
            "!empty": lambda: torch.empty(0),
            "!of shape 0 x": lambda: torch.empty(0, *tensor.shape),
            "!transposed": lambda: torch.ones(3, 5, 7),
            "!more dims": lambda: tensor[None],
            "expanded": lambda: torch.ones(1).expand(tensor.shape),
            "strided": lambda: torch.ones(*tensor.shape, 2)[..., 0],
            "overlapping": lambda: torch.ones(3).as_strided(tensor.shape, (0,) * tensor.dim()),
            "!nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "!jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            "conjugated": lambda: torch.ones(tensor.shape, dtype=torch.complex64).conj(),
            "negated": lambda: torch.ones(tensor.shape, dtype=torch.complex64).conj().imag,
            "parameter": lambda: torch.nn.Parameter(tensor.float()),
            "requires grad": lambda: tensor.float().clone().requires_grad_(),
            "!None": lambda: None, "!a number": lambda: 1.0, "!a text": lambda: "\x1b[31mx",
            "!a list": lambda: [1.0], "!a dict": lambda: {"x": tensor}, "!a dtype": lambda: torch.float32,
            "!storage": lambda: tensor.float().untyped_storage(), "!shape": lambda: tensor.shape,
            "!mkldnn": lambda: torch.ones(2, 2).to_mkldnn(),
            "!array": lambda: __import__("numpy").ones(3),
        }  # fmt: skip
        kind = chance.choice(list(kinds))
        bad = "!" if kind.startswith("!") else ""
        if kind in ("NaN", "one NaN", "infinity") and tensor.is_floating_point():
            bad = "!"
        try:
            state[name] = kinds[kind]()
        except Exception as error:
            return f"nothing: {kind} of {name}: {type(error).__name__}"
        if chance.random() < 0.2 and kind not in ("!None",):
            try:
                state = {
                    key: (state[name] if key == name else value) for key, value in state.items()
                }
                for key, value in self._state.items():
                    if value.shape == tensor.shape:
                        state[key] = state[name]
            except Exception:
                pass
        try:
            note = self._save(state, path, chance)
        except Exception as error:
            return f"nothing: {kind} of {name}: {type(error).__name__}"
        return f"{bad}{kind.removeprefix('!')}{note}: {name}"

    def _mapping(self, path: Path, chance: random.Random) -> str:
        """What holds the tensors, and their names."""
        import torch

        state = dict(self._state)
        name = chance.choice(list(state))
        long: dict[str, Any] = {}
        inner = long
        for _ in range(chance.choice((3, 500))):
            inner["state_dict"] = {}
            inner = inner["state_dict"]
        inner.update(state)
        recursive: dict[str, Any] = {}
        recursive["state_dict"] = recursive
        values: dict[str, Any] = {
            "!a list": list(state.values()), "!a tensor": state[name], "!None": None, "!empty": {},
            "!a text": "\x1b[31mx", "a model": None, "state_dict": {"state_dict": state, "epoch": 3},
            "nested": long, "!recursive": recursive, "!state_dict of a list": {"state_dict": [1]},
            "!state_dict empty": {"state_dict": {}}, "model": {"model": state}, "ema": {"model_ema": state},
            "DDP": {f"module.{k}": v for k, v in state.items()},
            "DDP twice": {f"module.module.{k}": v for k, v in state.items()},
            "DDP in part": {(f"module.{k}" if i % 2 else k): v for i, (k, v) in enumerate(state.items())},
            "compiled": {f"_orig_mod.{k}": v for k, v in state.items()},
            "!numbers for names": dict(enumerate(state.values())), "!None for a name": {None: state[name]},
            "!tuples for names": {(k,): v for k, v in state.items()}, "a name of bytes": {**state, b"x": state[name]},
            "!a dtype for a name": {torch.float32: state[name]}, "!true for a name": {True: state[name], **state},
            "!escapes": {**state, "\x1b[31mred\x1b]0;t\x07": state[name]}, "!line ends": {**state, "a\nb": state[name]},
            "!markup": {**state, "[/b]": state[name]}, "!surrogates": {**state, "\ud800": state[name]},
            "!long name": {**state, "x" * 100_000: state[name]}, "!bidi": {**state, "\u202egnp": state[name]},
            "!one missing": {k: v for k, v in state.items() if k != name or "num_batches" in k} if "num_batches"
            not in name else {}, "!another": {**state, "x": state[name]}, "ordered": collections.OrderedDict(state),
            "default": collections.defaultdict(int, state), "counter": collections.Counter("abc"),
            "!many": {f"k{i}": torch.zeros(1) for i in range(5000)}, "tied": dict.fromkeys(state, state[name]),
            "optimiser": {"param_groups": [], "state": {}}, "!set": {1, 2}, "!a number": 10**400,
            "!deep list": _deep(900), "metadata": {**state, "_metadata": {}}, "!name of none": {"": state[name]},
        }  # fmt: skip
        kind = chance.choice(list(values))
        if kind == "a model":
            values[kind] = torch.nn.Linear(2, 2)
        note = self._save_anything(values[kind], path, chance)
        return f"{kind}{note}"

    def _save_anything(self, value: Any, path: Path, chance: random.Random) -> str:
        try:
            return self._save(value, path, chance)
        except Exception as error:
            path.write_bytes(b"x")
            return f", one byte instead ({type(error).__name__})"

    def _bytes(self, path: Path, chance: random.Random) -> str:
        self._save(self._state, path, chance)
        how, content = bytes_of(chance, path.read_bytes())
        path.write_bytes(content)
        return how

    def _pickle(self, path: Path, chance: random.Random) -> str:
        """Pickles that run code, in every way in which PyTorch reads one."""
        import torch

        mark = Mark(self._ground.mark)
        kind = chance.choice(("plain", "in a state", "in torch.save", "old torch.save", "protocol 0", "bomb",
                              "deep", "global", "stack", "memo"))  # fmt: skip
        if kind == "plain":
            path.write_bytes(pickle.dumps(mark))
        elif kind == "in a state":
            path.write_bytes(pickle.dumps({"x": mark}, protocol=2))
        elif kind in ("in torch.save", "old torch.save"):
            torch.save(
                {**self._state, "x": mark}, path, _use_new_zipfile_serialization=kind[0] == "i"
            )
        elif kind == "protocol 0":
            path.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
        elif kind == "bomb":
            path.write_bytes(b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00h\x00e" * 10 + b".")
        elif kind == "deep":
            path.write_bytes(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
        elif kind == "global":
            path.write_bytes(
                b"\x80\x02c"
                + chance.choice((b"os\nsystem\n", b"x\ny\n", b"\x1b[31m\n\x1b\n", b"torch\nload\n"))
                + b"."
            )
        elif kind == "stack":
            path.write_bytes(
                b"\x80\x02"
                + chance.choice((b".", b"0.", b"R.", b"b.", b"t.", b"u.", b"h\x05.", b"\x8c\xff"))
            )
        else:
            path.write_bytes(b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.")
        return f"!pickle {kind}"

    def _zip(self, path: Path, chance: random.Random) -> str:
        """Zip files that only look like what ``torch.save`` writes."""
        import torch

        whole = io.BytesIO()
        torch.save(self._state, whole)
        kind = chance.choice(("empty", "a bomb", "other files", "no version", "no data", "data of others",
                              "names", "tensors of 2**62", "storage too short", "not a zip inside"))  # fmt: skip
        with (
            zipfile.ZipFile(whole) as source,
            zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target,
        ):
            entries = [] if kind == "empty" else source.infolist()
            for entry in entries:
                content, name = source.read(entry), entry.filename
                if kind == "no version" and name.endswith("version"):
                    continue
                if kind == "no data" and name.endswith("data.pkl"):
                    continue
                if kind == "data of others" and name.endswith("data.pkl"):
                    content = pickle.dumps({"x": Mark(self._ground.mark)}, protocol=2)
                if kind == "names":
                    name = chance.choice(
                        ("../" * 5 + name, "/" + name, "\x1b[31m" + name, name * 2)
                    )
                if kind == "other files":
                    name = f"x/{chance.randrange(1000)}"
                if kind == "tensors of 2**62" and name.endswith("data.pkl"):
                    content = content.replace(b"K\x08", b"J\xff\xff\xff\x7f")
                if kind == "storage too short" and "/data/" in name:
                    content = content[: chance.choice((0, 3))]
                if kind == "not a zip inside" and name.endswith("data.pkl"):
                    content = chance.randbytes(100)
                if kind == "a bomb" and "/data/" in name:
                    target.writestr(name, bytes(10**8), zipfile.ZIP_DEFLATED)
                    continue
                target.writestr(name, content)
        return f"zip: {kind}"

    def _header(self, path: Path, chance: random.Random) -> str:
        path.write_bytes(lying_header(chance))
        return f"!header {path.read_bytes()[:50]!r}"

    def _file(self, path: Path, chance: random.Random) -> str:
        self._save(self._state, path, chance)
        if chance.random() < 0.2:
            name = chance.choice(
                [
                    n
                    for n in NAMES
                    if "\x00" not in n
                    and "/" not in n
                    and 0 < len(n.encode("utf-8", "surrogateescape")) < 200
                    and n not in (".", "..")
                ]
            )
            return f"file, beside one called {name[:20]!r}"
        return f"file: {replace_by(chance, path, self._ground.precious)}"


def _with(tensor: Any, value: float) -> Any:
    changed = tensor.float().clone()
    changed.reshape(-1)[0] = value
    return changed


def _deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found
