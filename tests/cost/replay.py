"""What a network keeps alive and moves while it runs, by observers that know nothing of a trace."""

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


ELEMENTWISE = frozenset(
    {
        "add",
        "add_",
        "sub",
        "mul",
        "mul_",
        "div",
        "relu",
        "relu_",
        "relu6",
        "sigmoid",
        "silu",
        "silu_",
        "gelu",
        "hardswish",
        "hardswish_",
        "hardsigmoid",
        "hardsigmoid_",
        "hardtanh",
        "hardtanh_",
        "clamp",
        "clamp_",
        "mish",
        "mish_",
        "elu",
        "elu_",
        "threshold",
        "threshold_",
        "leaky_relu",
        "leaky_relu_",
        "tanh",
        "exp",
        "sqrt",
        "rsqrt",
        "pow",
        "neg",
        "copy_",
        "_prelu_kernel",
    }
)


class Traffic(TorchDispatchMode):
    """The bytes that every dispatched operator moves; a tensor is new where it is written into."""

    def __init__(self, example: Tensor, most: int | None) -> None:
        super().__init__()
        self._most = most
        self._version: dict[int, int] = {}
        self._storages = {example.untyped_storage()._cdata}  # of what is no state
        self._views: set[tuple[int, int]] = {self.node(example)}  # made by no operator
        self._bytes: dict[tuple[int, int], int] = {}
        self._read_by: dict[tuple[int, int], int] = {}
        self._moves: list[tuple[int, int]] = []
        self._next: list[list[tuple[int, int]]] = []
        self._held: list[Any] = [example]

    def node(self, tensor: Tensor) -> tuple[int, int]:
        return id(tensor), self._version.get(id(tensor), 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = list({id(t): t for t in tensors((args, kwargs))}.values())
        read = {self.node(t): t for t in given if self.known(t)}
        out = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket).removeprefix("aten.")
        made = tensors(out)
        self._held += [given, made]
        own = {t.untyped_storage()._cdata for t in given}
        shared = [t for t in made if t.untyped_storage()._cdata in own]
        for node in read:
            self._read_by[node] = self._read_by.get(node, 0) + 1
        if shared and not func._schema.is_mutable:
            self._views |= {self.node(t) for t in made}
            return out
        if func._schema.is_mutable:
            for tensor in shared:
                self._version[id(tensor)] = self._version.get(id(tensor), 0) + 1
        else:
            self._storages |= {t.untyped_storage()._cdata for t in made}
        for node, tensor in [*read.items(), *((self.node(t), t) for t in made if self.known(t))]:
            self._bytes[node] = self.size(tensor)
            self._moves.append(node)
        norm = name == "native_batch_norm" and not args[5]
        if name in ELEMENTWISE or norm:
            self._next.append([n for n, t in read.items() if t.numel() == made[0].numel()])
        return out

    def known(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._storages

    def size(self, tensor: Tensor) -> int:
        return tensor.numel() * min(tensor.element_size(), self._most or 8)

    def total(self, outputs: Any) -> int:
        """All bytes, but for what only the next operator reads, element by element."""
        kept = self._views | {self.node(tensor) for tensor in tensors(outputs)}
        order = {node: i for i, node in enumerate(dict.fromkeys(self._moves))}
        handed = set()
        for same in self._next:
            alone = [n for n in same if n not in kept and self._read_by[n] == 1]
            if alone:
                handed.add(max(alone, key=lambda node: order[node]))
        return sum(self._bytes[node] for node in self._moves if node not in handed)


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


def moved(model: nn.Module, example: Tensor, most: int | None = None) -> int:
    """Bytes of activations that the operators read and write, of at most ``most`` an element."""
    example = example.clone()
    with _plain(), Traffic(example, most) as seen:
        out = model(example)
    return seen.total(out)
