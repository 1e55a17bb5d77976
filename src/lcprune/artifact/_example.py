"""An example input as JSON: shapes and types of its tensors, and the plain values beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcprune._checks import LARGEST, refused
from lcprune._text import shown
from lcprune.errors import InputError
from lcprune.tracing import Inputs

DEEPEST = 16
"""Containers within one another."""
MOST = 1000
"""Tensors, values and containers together."""
LONGEST = 1000
"""Characters of a text."""
MOST_ELEMENTS = 2**30
"""Of all tensors together."""

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_DTYPES = {
    name: getattr(torch, name)
    for name in (
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
        "float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128",
    )
}  # fmt: skip


def recorded(inputs: Inputs) -> dict[str, Any]:
    """The inputs as JSON values; ``InputError`` for what can't be written so.

    Tensors become shapes and types; lists, tuples, dictionaries, ``None``, booleans, integers,
    floats and texts stay what they are.
    """
    found = {
        "args": [_recorded(value, 0) for value in inputs.args],
        "kwargs": {name: _recorded(value, 0) for name, value in inputs.kwargs.items()},
    }
    try:
        parsed(found)
    except ValueError as error:
        raise InputError(f"the example input can't be saved: {error}") from error
    return found


def _recorded(value: Any, depth: int) -> dict[str, Any]:
    if depth > DEEPEST:
        raise InputError(f"the example input is nested deeper than {DEEPEST} containers")
    if isinstance(value, Tensor):
        return {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if value is None or type(value) in (bool, int, str):
        return {"value": value}
    if type(value) is float:
        return {"value": value} if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Mapping):
        return {"dict": [[key, _recorded(entry, depth + 1)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_recorded(entry, depth + 1) for entry in value]}
    raise refused(
        "a part of the example input",
        value,
        "a tensor, None, a boolean, an integer, a float, a text, or a list, tuple or dictionary of "
        "such",
    )


def parsed(raw: object) -> Inputs:
    """What ``recorded`` was given, with tensors without values; ``ValueError`` with the reason."""
    if not isinstance(raw, dict) or raw.keys() != {"args", "kwargs"}:
        raise ValueError("expected args and kwargs")
    reader = _Reader()
    args, kwargs = raw["args"], raw["kwargs"]
    if not isinstance(args, list) or not isinstance(kwargs, dict) or "self" in kwargs:
        raise ValueError("expected args as a list and kwargs as an object")
    return Inputs(
        *[reader.read(value, 0) for value in args],
        **{name: reader.read(value, 0) for name, value in kwargs.items()},
    )


class _Reader:
    """Reads what was recorded, within the bounds on all of it."""

    def __init__(self) -> None:
        self._left = MOST
        self._elements = 0

    def read(self, raw: object, depth: int) -> Any:
        self._left -= 1
        if depth > DEEPEST or self._left < 0:
            raise ValueError(f"expected at most {MOST} parts, {DEEPEST} deep")
        if not isinstance(raw, dict):
            raise ValueError(f"expected an object for each part, got {shown(raw)}")
        if raw.keys() == {"tensor", "dtype"}:
            return self._tensor(raw["tensor"], raw["dtype"])
        if len(raw) == 1:
            [(kind, value)] = raw.items()
            if kind == "value":
                return _plain(value)
            if kind == "float" and isinstance(value, str) and value in _NOT_FINITE:
                return _NOT_FINITE[value]
            if kind in ("list", "tuple") and isinstance(value, list):
                entries = [self.read(entry, depth + 1) for entry in value]
                return entries if kind == "list" else tuple(entries)
            if kind == "dict" and isinstance(value, list):
                return dict(self._entry(pair, depth + 1) for pair in value)
        raise ValueError("expected a tensor, value, float, list, tuple or dict for each part")

    def _entry(self, pair: object, depth: int) -> tuple[Any, Any]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"expected a key and a part, got {shown(pair)}")
        key, value = pair
        if type(key) not in (str, int):
            raise ValueError(f"a key is {shown(key)}, expected a text or an integer")
        return _plain(key), self.read(value, depth)

    def _tensor(self, shape: object, dtype: object) -> Tensor:
        if not (
            isinstance(shape, list)
            and len(shape) <= 64
            and all(type(size) is int and 0 < size <= LARGEST for size in shape)
        ):
            raise ValueError("expected positive sizes for each tensor")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise ValueError(f"a tensor is of type {shown(dtype)}, expected one such as float32")
        self._elements += math.prod(shape)
        if self._elements > MOST_ELEMENTS:
            raise ValueError(f"expected tensors of at most {MOST_ELEMENTS} elements together")
        return torch.empty(shape, dtype=_DTYPES[dtype], device="meta")


def _plain(value: object) -> Any:
    if isinstance(value, str) and len(value) > LONGEST:
        raise ValueError(f"a text has {len(value)} characters, expected at most {LONGEST}")
    if type(value) is int and abs(value) > LARGEST:
        raise ValueError(f"a value is {shown(value)}, expected one within 64 bits")
    if not (value is None or type(value) in (bool, int, str, float)):
        raise ValueError(f"a value is {shown(value)}, expected a plain one")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a value is not finite")
    return value


def filled(inputs: Inputs) -> Inputs:
    """The inputs with values in their tensors: floats from 0 to 1, always the same, else zeros."""
    generator = torch.Generator().manual_seed(0)

    def fill(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return torch.rand(tensor.shape, generator=generator).to(tensor.dtype)
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    return inputs.mapped(fill)


def image_shape(inputs: Inputs) -> tuple[int, int, int] | None:
    """Channels, height and width of the first tensor that is a batch of images, if there is one."""
    shape = next((tensor.shape for tensor in inputs.tensors() if tensor.dim() == 4), None)
    return None if shape is None else (shape[1], shape[2], shape[3])
