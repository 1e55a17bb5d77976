"""What a network keeps alive while it runs, by two observers that know nothing of a trace."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class Replay(TorchDispatchMode):
    """Every dispatched operator as the storages that it touches; all of them are held."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: list[set[int]] = []
        self.bytes: dict[int, int] = {}
        self.held: list[Any] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        operands = tensors((args, kwargs))
        # A tensor that no operator made, and that is no input, is a state.
        for tensor in operands:
            self.bytes.setdefault(address(tensor), 0)
        out = func(*args, **(kwargs or {}))
        for tensor in tensors(out):
            self.bytes.setdefault(address(tensor), tensor.untyped_storage().nbytes())
        self.held += [*operands, out]
        self.touched.append({address(t) for t in (*operands, *tensors(out))})
        return out


class Weak(TorchDispatchMode):
    """The bytes of storages that are really alive after each operator, by weak references."""

    def __init__(self, state: list[Tensor]) -> None:
        super().__init__()
        self.state = {address(tensor) for tensor in state}
        self.alive: dict[int, tuple[weakref.ref[Any], int]] = {}
        self.peak = 0

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.state:
            self.alive[storage._cdata] = (weakref.ref(tensor), storage.nbytes())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        raise NotImplementedError


@contextmanager
def plain() -> Iterator[None]:
    """Attention as the matrix products that it is made of, no gradients."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def replayed(model: nn.Module, example: Tensor) -> int:
    """The peak bytes of activations by the operators that are dispatched."""
    inputs = example.clone()
    with plain(), Replay() as seen:
        seen.bytes[address(inputs)] = inputs.untyped_storage().nbytes()
        out = model(inputs)
    count = len(seen.touched)
    ends: dict[int, tuple[int, int]] = {}
    for step, touched in enumerate(seen.touched):
        for storage in touched:
            first = 0 if storage == address(inputs) else ends.get(storage, (step, step))[0]
            ends[storage] = (first, step)
    for tensor in tensors(out):
        ends[address(tensor)] = (ends[address(tensor)][0], count - 1)
    return max(
        sum(seen.bytes[s] for s, (first, last) in ends.items() if first <= step <= last)
        for step in range(count)
    )
