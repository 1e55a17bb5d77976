"""The operators that ran, and the tensors that they read and made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from lcprune.tracing._notes import Counted
from lcprune.tracing._planes import Geometry, Planes, geometry


@dataclass(frozen=True)
class Made:
    """A tensor and its planes when it was made; ``name`` is that of a parameter or buffer."""

    kind: Literal["input", "state", "activation"]
    tensor: Tensor
    planes: Planes
    storage: int
    name: str = ""


@dataclass(frozen=True)
class Ran:
    """An operator that ran; ``reads`` and ``writes`` are positions in ``Record.values``."""

    kind: str
    module: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...]
    counted: tuple[Counted, ...]


class Record:
    """Values in order of creation and operators in order of execution.

    Every tensor is held, so that the address of its storage stays its own.
    """

    def __init__(self) -> None:
        self.values: list[Made] = []
        self.ops: list[Ran] = []
        self.outputs: tuple[int, ...] = ()
        self._numbers: dict[Geometry, int] = {}
        self._storages: dict[int, int] = {}

    def add(
        self,
        kind: Literal["input", "state", "activation"],
        tensor: Tensor,
        planes: Planes = (),
        name: str = "",
    ) -> int:
        """Note a tensor as a new value; its position."""
        key = geometry(tensor)
        storage = self._storages.setdefault(key[0], len(self._storages))
        self._numbers[key] = len(self.values)
        self.values.append(Made(kind, tensor, planes, storage, name))
        return len(self.values) - 1

    @property
    def size(self) -> int:
        """How many numbers the operators gave; views hold none of their own."""
        given = {made.storage: made.tensor.numel() for made in reversed(self.values)
                 if made.kind == "activation"}  # fmt: skip
        return sum(given.values())

    def numbers(self, tensors: Iterable[Tensor]) -> tuple[int, ...]:
        """The positions of tensors; what nothing has made is a state, a constant of the code."""
        return tuple([self._number(t) for t in tensors if t.layout == torch.strided])

    def _number(self, tensor: Tensor) -> int:
        known = self._numbers.get(geometry(tensor))
        return self.add("state", tensor) if known is None else known

    def ran(
        self,
        func: Any,
        module: str,
        reads: tuple[int, ...],
        written: Iterable[tuple[Tensor, Planes]],
        arguments: tuple[tuple[Any, ...], Mapping[str, Any]],
        counted: Iterable[Counted],
    ) -> None:
        """Note an operator, what it read and wrote (with its planes), and its multiply-adds."""
        writes = tuple(
            [
                self.add("activation", t, planes)
                for t, planes in written
                if t.layout == torch.strided
            ]
        )
        name = str(func.overloadpacket).removeprefix("aten.")
        settings = _settings(func, *arguments)
        self.ops.append(Ran(name, module, reads, writes, settings, tuple(counted)))


@lru_cache(maxsize=4096)
def _names(func: Any) -> tuple[tuple[str, Any], ...]:
    """Names and defaults of an operator's arguments."""
    return tuple(
        (a.name, a.default_value if a.has_default_value() else None) for a in func._schema.arguments
    )


def _settings(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[str, Any], ...]:
    """The numbers, and lists of numbers, that an operator was given, but for the defaults."""
    given: list[tuple[str, Any]] = []
    for position, (name, default) in enumerate(_names(func)):
        value = args[position] if position < len(args) else kwargs.get(name, default)
        number = _plain(value)
        if number is not None and value != default:
            given.append((name, number))
    return tuple(given)


def _plain(value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list | tuple):
        numbers = tuple(_plain(item) for item in value)
        return None if None in numbers else numbers
    return None
