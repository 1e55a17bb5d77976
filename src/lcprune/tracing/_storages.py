"""What goes with the values of a tensor from one operation to the next, known by its storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

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

BRANCHES = frozenset({aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.allclose})
"""Those that make Python values."""

LEAVES = frozenset({"numpy", "tolist", "__array__", "__dlpack__"})
"""Methods by which the values of a tensor leave PyTorch; no operation shows it."""


class DataWatch:
    """Tells values that depend on the model's input from those of its state and its code.

    What is known to be constant are parameters, buffers, tensors that modules hold as ordinary
    attributes, literals, and whatever is computed of them alone; it is known by its storage, of
    which every result of an operation tells anew.
    """

    def __init__(self, state: Iterable[Tensor]) -> None:
        self._state = frozenset(storage_of(tensor) for tensor in state)
        self._constant = set(self._state)
        self._computed: set[int] = set()
        self._drawn: set[int] = set()
        self._storages: dict[int, StorageWeakRef] = {}

    def let_go(self) -> frozenset[int]:
        """Forget the storages that nobody holds any more; they are what it gives."""
        gone = frozenset(at for at, storage in self._storages.items() if storage.expired())  # type: ignore[no-untyped-call]
        for at in gone:
            del self._storages[at]
        for known in (self._constant, self._computed, self._drawn):
            known -= gone
        return gone

    def follow(
        self, func: Any, tensors: list[Tensor], out: Any
    ) -> Literal["", "input", "computed", "draw"]:
        """Note what an operation makes of ``tensors``; what it decides by, if it does.

        Data are either what the model was given, or what its parameters have computed of that.
        """
        by_data = func.overloadpacket is not aten.lift_fresh and not all(
            self.is_constant(tensor) for tensor in tensors
        )
        by_draw = torch.Tag.nondeterministic_seeded in func.tags or (
            bool(self._drawn) and any(storage_of(tensor) in self._drawn for tensor in tensors)
        )
        computed = by_data and any(self._is_computed(tensor) for tensor in tensors)
        for result in operands((out,)):
            storage = storage_of(result)
            if storage and storage not in self._state:
                self._storages[storage] = StorageWeakRef(result.untyped_storage())  # type: ignore[no-untyped-call]
            (self._computed.add if computed else self._computed.discard)(storage)
            (self._constant.discard if by_data else self._constant.add)(storage)
            (self._drawn.add if by_draw else self._drawn.discard)(storage)
        if func.overloadpacket is aten._pack_padded_sequence:
            # How many sequences there are at every step: loops over them decide nothing else.
            self._constant.add(storage_of(out[1]))
        if func.overloadpacket not in DECIDES:
            return ""
        if by_data:
            return "computed" if computed else "input"
        return "draw" if by_draw else ""

    def source(self, tensor: Tensor) -> Literal["", "input", "computed", "draw"]:
        """What the values of ``tensor`` depend on: the most telling of what they do."""
        if not self.is_constant(tensor):
            return "computed" if self._is_computed(tensor) else "input"
        return "draw" if self.is_drawn(tensor) else ""

    def _is_computed(self, tensor: Tensor) -> bool:
        storage = storage_of(tensor)
        return storage in self._state or storage in self._computed

    def is_drawn(self, tensor: Tensor) -> bool:
        """Whether the values of ``tensor`` are random."""
        return storage_of(tensor) in self._drawn

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether the values of ``tensor`` do not depend on the model's input."""
        return storage_of(tensor) in self._constant


def state_of(model: nn.Module) -> list[Tensor]:
    """All tensors that a model holds: parameters, buffers, and ordinary attributes of modules."""
    leaves = (leaf for module in model.modules() for leaf in tree_leaves(vars(module)))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


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


CONTRACTIONS = frozenset(
    {aten.convolution, aten._convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm}
)


class Extremes:
    """Which tensors hold extremes over which labels, up to the next contraction.

    The largest of several channels is one of them. Where a contraction reads it, its labels have
    ended; where it is returned (the best score of a detector, with its class), the channels that
    it was chosen from are what the model returns, and must stay as its outputs do.
    """

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._fresh: set[int] = set()
        self._by_storage: dict[int, frozenset[int]] = {}

    def add(self, labels: Tensor) -> None:
        """Note that the operation that runs yields an extreme over ``labels``."""
        self._fresh.add(len(self._labels))
        self._labels.append(labels)

    def follow(self, func: Any, tensors: Iterable[Tensor], results: Iterable[Tensor]) -> None:
        """Let the results of an operation hold what its operands hold."""
        if not self._labels:
            return
        found = frozenset(self._fresh)
        self._fresh.clear()
        if func.overloadpacket not in CONTRACTIONS:
            found = found.union(*(self._by_storage.get(storage_of(t), ()) for t in tensors))
        for result in results:
            self._by_storage[storage_of(result)] = found

    def let_go(self, storages: Iterable[int]) -> None:
        """Forget storages that are no more."""
        for storage in storages:
            self._by_storage.pop(storage, None)

    def under(self, tensor: Tensor) -> list[Tensor]:
        """The labels of which ``tensor`` holds an extreme."""
        return [self._labels[n] for n in self._by_storage.get(storage_of(tensor), ())]
