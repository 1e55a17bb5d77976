"""Saved networks whose files fit each other by their checksums, and are wrong."""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing.bases import Bases
from fuzzing.hostile import DEEP_JSON, JSON_VALUES, bytes_of, deep_list, replace_by
from fuzzing.sealed import changed_place, read_json, reseal, seal_json
from fuzzing.tries import Ground, Try

INTEGERS = (-1, -(2**31), 0, 1, 2**31, 2**62, 2**63, 2**64, 10**30)
ATTRIBUTES = (
    "__class__", "__dict__", "__init__", "__call__", "forward", "_modules", "_parameters", "_buffers",
    "eval", "train", "training", "eps", "momentum", "weight", "bias", "running_mean", "stride",
    "padding", "dilation", "groups", "kernel_size", "padding_mode", "in_channels", "out_channels",
    "num_features", "affine", "track_running_stats", "_forward_hooks", "__setattr__", "to", "state_dict",
    "load_state_dict", "num_batches_tracked", "_version", "nosuch", "", "a.b", "\x1b[31m", "before",
    "after", "out_features", "in_features", "__doc__", "register_buffer", "cpu", "__slots__", "apply",
)  # fmt: skip
MODULES = ("", "conv1", "bn1", "layer1", "layer1.0", "layer1.0.conv1", "layer2.0.shortcut.pad", "linear",
           "nosuch", ".", "..", "layer1.", "__class__", "forward", "conv1.weight", "\x1b[31m")  # fmt: skip
FACTORIES = (
    "evil:make", "evil.py:make", "./evil.py:make", "../canary/evil.py:make", "os:system", "builtins:eval",
    "cifar_resnet20", "cifar_resnet110", "cifar_mobilenet_v2", "torchvision/resnet18", "timm/resnet18",
    "torchvision/nosuch", "timm/hf-hub:x/y", "timm/hf_hub:x/y", "hf-hub:x/y", "timm/local-dir:../x",
    "timm/../x", "torchvision/../x", "", " ", "x", "\x1b[31mred", "[/b]", "a\nb", ":", "torchvision/",
    "digits_resnet\x00", "digits_resnet ", "Digits_Resnet", "timm/" + "x" * 10_000, "file:///etc/passwd",
    "torchvision/fasterrcnn_resnet50_fpn", "timm/resnet18.a1_in1k", "lcprune.models:build", "\u202ex",
)  # fmt: skip


TENSORS = (
    "without one", "with one more", "of another type", "of NaN", "of infinity", "with an empty one",
    "with a dimension more", "twice as large", "none", "flat", "with a prefix", "in double",
    "all of NaN", "said to be complex",
)  # fmt: skip


class Artifacts:
    """The surface."""

    def __init__(self, ground: Ground, seed: int, bases: Bases) -> None:
        self._ground, self._saved = ground, bases.run("saved")
        self._ways: tuple[Callable[[Path, random.Random], str], ...] = (
            self._kept, self._kept, self._kept, self._attributes, self._attributes, self._attributes,
            self._figures, self._plan, self._plan, self._text, self._described, self._described,
            self._inputs, self._factory, self._versions, self._tensors, self._tensors, self._header,
            self._file,
        )  # fmt: skip

    def make(self, number: int, chance: random.Random, folder: Path) -> Try:
        """The try of this number."""
        saved = folder / "saved"
        shutil.copytree(self._saved, saved)
        (folder / "evil.py").write_text(self._ground.evil())
        way = self._ways[number % len(self._ways)]
        what = way(saved, chance)
        try:
            reseal(saved)
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            what += ", not sealed"
        bad = what.startswith("!")
        what = what.removeprefix("!")
        kind = chance.random()
        if kind < 0.55:
            return Try(f"lp.load, {what}", call=loaded, bad=bad, offline=True)
        if kind < 0.75:
            return Try(f"lp.load of a model, {what}", call=loaded_into, bad=bad, offline=True)
        arguments = ("evaluate", "saved", "--data", "digits", "--device", "cpu")
        return Try(f"evaluate, {what}", arguments, bad=bad, offline=True)

    def _edit(self, saved: Path, change: Callable[[dict[str, Any]], str]) -> str:
        values = read_json(saved / "plan.json")
        what = change(values)
        text = json.dumps(values).replace(json.dumps(DEEP_JSON), deep_list(900))
        (saved / "plan.json").write_text(text)
        return what

    def _kept(self, saved: Path, chance: random.Random) -> str:
        """Indices, dimensions and names of what is kept."""

        def change(plan: dict[str, Any]) -> str:
            entry = chance.choice(plan["kept"])
            indices, kind = entry["indices"], chance.randrange(16)
            if kind == 0:
                entry["indices"] = [chance.choice(INTEGERS[:2]), *indices[1:]]
            elif kind == 1:
                entry["indices"] = [*indices[:-1], chance.choice(INTEGERS[4:])]
            elif kind == 2:
                entry["indices"] = indices[::-1] if len(indices) > 1 else [-1]
            elif kind == 3:
                entry["indices"] = [indices[0]] * len(indices) if len(indices) > 1 else [-1]
            elif kind == 4:
                entry["indices"] = []
            elif kind == 5:
                entry["dim"] = chance.choice((-1, 99, 2**63, 10**30, -(2**63)))
            elif kind == 6:
                entry["dim"] = chance.choice(("0", 0.5, None, [0], {}, True, "x", float("nan")))
            elif kind == 7:
                entry["indices"] = chance.choice(("0", 1, None, {}, "x", [None], [[0]], ["0"], [0.5],
                                                  {"0": 0}, [float("nan")], [True]))  # fmt: skip
            elif kind == 8:
                entry["tensor"] = chance.choice(("", "nosuch", "conv1", ".", "__class__", 1, None, [],
                                                 "\x1b[31mred", "a\nb", "[/b]", "conv1.weight "))  # fmt: skip
            elif kind == 9:
                plan["kept"].append(dict(entry, indices=indices[:-1] or [0]))
                return f"kept twice: {entry['tensor']}"
            elif kind == 10:
                plan["kept"].remove(entry)
            elif kind == 11:
                entry["indices"] = [*indices, max(indices) + 1]
            elif kind == 12:
                entry["indices"] = indices[:-1] or [0, 1]
            elif kind == 13:
                plan["kept"] = chance.choice(([], None, {}, "x", [[]], [1], plan["kept"] * 2))
                return "kept is another"
            elif kind == 14:
                entry["indices"] = list(range(10**6))
            else:
                del entry[chance.choice(list(entry))]
            # All of these are wrong beside the weights, which fit the plan that was saved.
            return f"!kept by {kind}: {str(entry)[:80]!r}"

        return self._edit(saved, change)

    def _attributes(self, saved: Path, chance: random.Random) -> str:
        """Attributes that a plan sets."""

        def change(plan: dict[str, Any]) -> str:
            edits = plan["attributes"]
            if edits and chance.random() < 0.4:
                edit, kind = chance.choice(edits), chance.randrange(5)
                if kind == 0:
                    edit[3] = chance.choice((*INTEGERS, "x", None, 0.5, float("nan"), [], True))
                elif kind == 1:
                    edit[2] = chance.choice((-1, 5, 2**63, "x", 0.5, [], True))
                elif kind == 2:
                    at = edits.index(edit)
                    edits[at] = chance.choice(([], edit[:3], [*edit, 1], "abcd", None, {}))
                    return f"attribute is {str(edits[at])[:60]!r}"
                elif kind == 3:
                    edit[1] = chance.choice(ATTRIBUTES)
                else:
                    edit[0] = chance.choice(MODULES)
                return f"attribute edited: {str(edit)[:60]!r}"
            name, module = chance.choice(ATTRIBUTES), chance.choice(MODULES)
            value = chance.choice((*INTEGERS, 1, 2, 3))
            index = chance.choice((None, None, None, 0, -1, 5, 2**63))
            edits.append([module, name, index, value])
            # No attribute of these is a size, which is all that a cut changes.
            never = name.startswith("_") or name in (
                "forward", "eval", "train", "training", "eps", "momentum", "weight", "bias", "to",
                "state_dict", "apply", "cpu", "load_state_dict", "register_buffer", "affine",
            )  # fmt: skip
            shown = f"attribute {module!r}.{name!r}[{index}] = {value}"
            return f"!{shown}" if never else shown

        return self._edit(saved, change)

    def _figures(self, saved: Path, chance: random.Random) -> str:
        """Latents, costs, criterion."""

        def change(plan: dict[str, Any]) -> str:
            key = chance.choice(("latent", "cost", "criterion", "compensation", "schema"))
            if key in ("latent", "cost") and chance.random() < 0.6:
                plan[key] = {
                    chance.choice(("macs", "x", "", "\x1b[31m")): chance.choice(JSON_VALUES)
                }
            else:
                plan[key] = chance.choice((*JSON_VALUES, DEEP_JSON))
            return f"{key} is {str(plan[key])[:40]!r}"

        return self._edit(saved, change)

    def _plan(self, saved: Path, chance: random.Random) -> str:
        return self._edit(saved, lambda plan: f"plan: {changed_place(plan, chance)}")

    def _text(self, saved: Path, chance: random.Random) -> str:
        """A plan that is no plan, by its bytes."""
        path = saved / "plan.json"
        if chance.random() < 0.5:
            how, content = bytes_of(chance, path.read_bytes())
        else:
            content = chance.choice((
                deep_list(100_000).encode(), b"null", b"[]", b"1", b'"x"', b"NaN", b"{}", b"\xff\xfe",
                b'{"schema": 1}', b'{"schema": 1, "kept": ' + deep_list(50_000).encode() + b"}",
                b'{"schema": 1, "schema": 2}', b"\xef\xbb\xbf" + path.read_bytes(), b"1" * 5000,
                path.read_text().encode("utf-16"), b'{"schema": ' + b"9" * 5000 + b"}", b"{" * 100_000,
            ))  # fmt: skip
            how = repr(content[:20])
        path.write_bytes(content)
        return f"plan.json: {how}"

    def _described(self, saved: Path, chance: random.Random) -> str:
        path = saved / "artifact.json"
        values = read_json(path)
        what = changed_place(values, chance)
        seal_json(path, values)
        return f"artifact.json: {what}"

    def _inputs(self, saved: Path, chance: random.Random) -> str:
        path = saved / "artifact.json"
        values = read_json(path)
        shape = chance.choice((
            [], [1], [1, 1, 8], [1, 1, 8, 8, 8], [0, 1, 8, 8], [1, 0, 8, 8], [1, 1, 0, 0], [1, 1, 1, 1],
            [1, 2**31 - 1, 1, 1], [2**30, 1, 8, 8], [1, 1, 2**31, 2**31], [1, -1, 8, 8], [1, 3, 8, 8],
            [1.0, 1, 8, 8], ["1", 1, 8, 8], [None], [[1]], 5, None, "x", {}, [1] * 10_000, [True] * 4,
            [1, 1, 30000, 30000], [1, 10**30, 1, 1], [2**31 - 1] * 4,
        ))  # fmt: skip
        dtype = chance.choice(("torch.float32", "float32", "torch.int64", "torch.complex64", "x", "",
                               "torch.nosuch", "__class__", None, 1, "\x1b[31m", "torch.quint8",
                               "torch.save", "torch.bits8"))  # fmt: skip
        entry = {"shape": shape, "dtype": dtype}
        values["inputs"] = chance.choice(([entry], [entry], [entry] * 2, entry, [], None, [None], "x",
                                          [entry] * 1000, {"x": entry}, [[entry]]))  # fmt: skip
        seal_json(path, values)
        return f"inputs: {str(values['inputs'])[:60]}"

    def _factory(self, saved: Path, chance: random.Random) -> str:
        path = saved / "artifact.json"
        values = read_json(path)
        values["factory"] = chance.choice(FACTORIES)
        if chance.random() < 0.3:
            values["classes"] = chance.choice(
                (0, -1, 1, 11, 2**31, 10**30, "10", 1.5, True, [], None)
            )
        seal_json(path, values)
        return f"factory {values['factory'][:40]!r}, classes {values['classes']!r}"

    def _versions(self, saved: Path, chance: random.Random) -> str:
        path = saved / "artifact.json"
        values = read_json(path)
        if chance.random() < 0.3:
            values["versions"] = chance.choice(JSON_VALUES)
        elif chance.random() < 0.8:
            name = chance.choice(
                ("lcprune", "torch", "torchvision", "python", "\x1b[31m", "[/b]", "")
            )
            values["versions"][name] = chance.choice(
                ("\x1b[31mred\x1b]0;t\x07", "9.9.9\n" * 5, "", "x", "0", "99", "[/b]", "\u202e1.0",
                 "1" * 10_000, "0.0.1", None, 1, [], "-1", "1.0\r\n2", "\x9b31m", "a.b.c", "💥")
            )  # fmt: skip
        else:
            values["schema"] = chance.choice(
                (0, 1, 2, 3, 99, -1, 2**63, "1", 1.0, None, True, [], "x")
            )
            values["versions"]["lcprune"] = chance.choice(
                ("\x1b[31mred", "a\nb", "x" * 10_000, "[/b]")
            )
        seal_json(path, values)
        return f"versions: {str(values['versions'])[-60:]!r}, schema {values.get('schema')!r}"

    def _tensors(self, saved: Path, chance: random.Random) -> str:
        """Weights of other names, types, shapes and values."""
        import torch
        from safetensors.torch import load_file, save_file

        path = saved / "model.safetensors"
        state = load_file(path)
        name = chance.choice(sorted(state))
        tensor, kind = state[name], chance.randrange(14)
        bad = "!"
        if kind == 0:
            del state[name]
        elif kind == 1:
            state[chance.choice(("x", "", "\x1b[31mred", "a\nb", "conv1", "module." + name))] = (
                tensor
            )
        elif kind == 2:
            dtype = chance.choice((torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64,
                                   torch.bool, torch.uint8, torch.float8_e4m3fn))  # fmt: skip
            state[name] = tensor.to(dtype)
            bad = ""
            name = f"{name} {dtype}"
        elif kind in (3, 4):
            value = float("nan") if kind == 3 else float("inf")
            state[name] = (
                torch.full_like(tensor, value) if tensor.is_floating_point() else tensor - 9
            )
            bad = "!" if tensor.is_floating_point() else ""
        elif kind == 5:
            state[name] = tensor[:0] if tensor.dim() else tensor.reshape(1)
        elif kind == 6:
            state[name] = tensor[None]
        elif kind == 7:
            state[name] = torch.cat([tensor, tensor]) if tensor.dim() else tensor.repeat(2)
        elif kind == 8:
            state = {}
        elif kind == 9:
            state[name] = tensor.flatten()
            bad = "!" if tensor.dim() > 1 else ""
        elif kind == 10:
            state = {f"module.{key}": value for key, value in state.items()}
        elif kind == 11:
            state = {key: value.double() for key, value in state.items()}
            bad = ""
        elif kind == 12:
            state = {k: torch.full_like(v, float("nan")) if v.is_floating_point() else v
                     for k, v in state.items()}  # fmt: skip
        else:
            values = read_json(saved / "artifact.json")
            values["complex"] = chance.choice(
                ([name], ["x"], [name] * 2, [""], "x", [None], list(state))
            )
            seal_json(saved / "artifact.json", values)
            bad = ""
        save_file(state, path)
        return f"{bad}weights {TENSORS[kind]}: {name}"

    def _header(self, saved: Path, chance: random.Random) -> str:
        """A safetensors file with a header that lies."""
        path = saved / chance.choice(("model.safetensors", "buffers.safetensors"))
        if path.name.startswith("buffers"):
            values = read_json(saved / "artifact.json")
            values["sha256"]["buffers.safetensors"] = "x"
            seal_json(saved / "artifact.json", values)
        path.write_bytes(lying_header(chance))
        return f"{path.name}: {path.read_bytes()[:60]!r}"

    def _file(self, saved: Path, chance: random.Random) -> str:
        path = chance.choice(sorted(saved.iterdir()))
        if chance.random() < 0.5:
            path = saved / (path.name + ".new")
        return f"{path.name}: {replace_by(chance, path, self._ground.precious)}"


def lying_header(chance: random.Random) -> bytes:
    """The bytes of a safetensors file whose header lies."""
    entry: dict[str, Any] = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    kind = chance.randrange(14)
    if kind < 4:
        length = chance.choice((2**63, 2**64 - 1, 2**40, 0, 1, 10**8, 10**9))
        return struct.pack("<Q", length) + b"{}" + bytes(chance.choice((0, 8)))
    if kind == 4:
        entry["shape"] = chance.choice(
            ([2**62, 4], [-1], [0], [2**63], "x", [None], [1] * 10_000, [])
        )
    elif kind == 5:
        entry["data_offsets"] = chance.choice(
            ([16, 0], [0, 2**62], [-1, 3], [0], [8, 24], "x", [0, 15])
        )
    elif kind == 6:
        entry["dtype"] = chance.choice(("F8", "x", "", None, "F64", "BOOL", "I4", "\x1b[31m"))
    name = chance.choice(("x", "", "conv1.weight", "\x1b[31mred", "__metadata__", "a\nb"))
    header = json.dumps({name: entry}).encode()
    if kind == 7:
        header = deep_list(50_000).encode()
    elif kind == 8:
        header = b'{"a":' * 50_000
    elif kind == 9:
        header = b'{"x":1,"x":2}'
    elif kind == 10:
        header = b"\xff\xfe\x00" * 5
    elif kind == 11:
        header = json.dumps(
            {"__metadata__": chance.choice((1, {"x": 1}, [], {"\x1b": "x"}))}
        ).encode()
    elif kind == 12:
        header = json.dumps({f"t{i}": dict(entry) for i in range(2000)}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


def loaded() -> object:
    """Load what lies in the working directory, and run it."""
    import lcprune as lp

    return _works(lp.load("saved"))


def loaded_into() -> object:
    """The same, with a network that the user has built."""
    import lcprune as lp
    from lcprune.models import build

    model = build("digits_resnet", classes=10, input_shape=(1, 8, 8))
    return _works(lp.load(Path("saved"), model))


def _works(small: Any) -> object:
    import torch

    first = next((m for m in small.modules() if isinstance(m, torch.nn.Conv2d)), None)
    channels = 1 if first is None else first.in_channels
    dtype = next((p.dtype for p in small.parameters()), torch.float32)
    return small(
        torch.randn(2, channels, 32 if channels == 3 else 8, 32 if channels == 3 else 8).to(dtype)
    )
