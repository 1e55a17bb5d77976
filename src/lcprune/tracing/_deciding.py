"""Where a model decides by its data: the path of the example input is the one that is traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

DECIDES = frozenset(
    {
        aten._local_scalar_dense,
        aten.is_nonzero,
        aten.equal,
        aten.allclose,
        aten.nonzero,
        aten.masked_select,
        aten._unique2,
        aten.unique_dim,
        aten.unique_consecutive,
    }
)
"""Operations that make Python values, or shapes, out of the values of a tensor."""

LEAVES = frozenset({"numpy", "tolist", "__array__", "__dlpack__"})
"""Methods by which the values of a tensor leave PyTorch; no operation shows it."""


class DataWatch:
    """Tells values that depend on the model's input from those of its state and its code.

    What is known to be constant are parameters, buffers, literals, and whatever is computed of
    them alone; it is known by its storage, of which every result of an operation tells anew.
    """

    def __init__(self, state: Iterable[Tensor]) -> None:
        self._constant = {storage_of(tensor) for tensor in state}

    def follow(self, func: Any, tensors: Iterable[Tensor], out: Any) -> bool:
        """Note what an operation makes of ``tensors``; whether it decides by data."""
        by_data = func.overloadpacket is not aten.lift_fresh and not all(
            self.is_constant(tensor) for tensor in tensors
        )
        for result in operands((out,)):
            if by_data:
                self._constant.discard(storage_of(result))
            else:
                self._constant.add(storage_of(result))
        return by_data and func.overloadpacket in DECIDES

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether the values of ``tensor`` do not depend on the model's input."""
        return storage_of(tensor) in self._constant


def note_of(module: str) -> str:
    """What a graph notes of a module that decides by data."""
    return (
        f"the control flow of {module or 'the model'} depends on data; followed along the path "
        "of the example input"
    )


def operands(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operation's arguments or results, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from operands(value)


def storage_of(tensor: Tensor) -> int:
    """The address of a tensor's values."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0
