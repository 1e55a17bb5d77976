"""What a network keeps alive while it runs, by two observers that know nothing of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Replay(TorchDispatchMode):
    """Every dispatched operator as the storages that it touches; all of them are held."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str] = []
        self.touched: list[set[int]] = []
        self.bytes: dict[int, int] = {}
        self._held: list[Any] = []

    def see(self, tensor: Tensor, size: int) -> int:
        address = tensor.untyped_storage()._cdata
        self.bytes.setdefault(address, size)
        self._held.append(tensor)
        return address

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # A tensor that no operator made, and that is no input, is a state.
        read = {self.see(tensor, 0) for tensor in tensors((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        made = {self.see(t, t.untyped_storage().nbytes()) for t in tensors(out)}
        self.touched.append(read | made)
        self.kinds.append(str(func.overloadpacket).removeprefix("aten."))
        return out


class Alive(TorchDispatchMode):
    """The most bytes of storages that are really alive as an operator ends, states left out."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._states: set[int] = set()
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if reference.cdata not in self._states:
            self._storages[reference.cdata] = (reference, storage.nbytes())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        operands = tensors((args, kwargs))
        known = self._storages
        self._states |= {
            cdata for t in operands if (cdata := t.untyped_storage()._cdata) not in known
        }
        out = func(*args, **(kwargs or {}))
        for tensor in tensors(out):
            self.see(tensor)
        gone = [cdata for cdata, (reference, _) in known.items() if reference.expired()]
        for cdata in gone:
            del known[cdata]
        self.peak = max(self.peak, sum(size for _, size in known.values()))
        return out


@contextmanager
def _plain() -> Iterator[None]:
    """No gradients, and attention as the matrix products that it is made of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def replayed(model: nn.Module, example: Tensor) -> tuple[int, list[str]]:
    """Peak bytes of activations, by the storages between first and last operator; all operators."""
    example = example.clone()
    with _plain(), Replay() as seen:
        inputs = seen.see(example, example.untyped_storage().nbytes())
        outputs = {tensor.untyped_storage()._cdata for tensor in tensors(model(example))}
    peak = 0
    for step in range(len(seen.touched)):
        before = {inputs}.union(*seen.touched[: step + 1])
        after = outputs.union(*seen.touched[step:])
        peak = max(peak, sum(seen.bytes[storage] for storage in before & after))
    return peak, seen.kinds


def really_alive(model: nn.Module, example: Tensor) -> int:
    """Peak bytes of activations, by weak references to the storages."""
    example = example.clone()
    with _plain(), Alive() as seen:
        seen.see(example)
        model(example)
    return seen.peak
