"""Label planes: which channel each element of a tensor belongs to.

A plane has as many dimensions as its tensor, and size 1 along every dimension over which the
label does not change; it broadcasts to the tensor's shape. A tensor can have several planes (a
weight has one per dimension), each of which varies over dimensions of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lcprune.graph import FIXED
from lcprune.tracing._labels import LabelSpace
from lcprune.tracing._running import Running

Planes = tuple[Tensor, ...]


def varying(plane: Tensor) -> frozenset[int]:
    """The dimensions along which the label changes."""
    return frozenset(d for d, size in enumerate(plane.shape) if size > 1)


def along(planes: Planes, dim: int) -> Tensor | None:
    """The plane that varies along ``dim``, if there is one."""
    for plane in planes:
        if plane.shape[dim] > 1:
            return plane
    return None


def compact(full: Tensor) -> Tensor | None:
    """The plane of a full tensor of labels; none where the label never changes."""
    plane = full
    for d in range(full.dim()):
        if plane.shape[d] <= 1:
            continue
        first = plane.narrow(d, 0, 1)
        if plane.stride(d) == 0 or bool((plane == first).all()):
            plane = first
    return plane if varying(plane) else None


def align(plane: Tensor, dims: int) -> Tensor:
    """The plane with leading dimensions of size 1, as broadcasting adds them."""
    return plane.reshape((1,) * (dims - plane.dim()) + tuple(plane.shape))


def vector(plane: Tensor | None, dim: int, size: int) -> Tensor:
    """The labels along ``dim`` as a vector; ``FIXED`` where there are none.

    The plane must vary along ``dim`` only.
    """
    if plane is None:
        return torch.full((size,), FIXED, dtype=torch.int64, device="cpu")
    return plane.reshape(-1)


def from_vector(labels: Tensor, dim: int, dims: int) -> Planes:
    """The planes of a tensor of ``dims`` dimensions with ``labels`` along ``dim``."""
    if labels.numel() <= 1 or bool((labels == FIXED).all()):
        return ()
    shape = [1] * dims
    shape[dim] = labels.numel()
    return (labels.reshape(shape),)


def drop_dims(planes: Planes, dims: Sequence[int], keepdim: bool) -> Planes:
    """The planes after a reduction over ``dims``; none of them may vary there."""
    if keepdim:
        return planes
    kept = [d for d in range(planes[0].dim()) if d not in dims] if planes else []
    return tuple(plane.reshape([plane.shape[d] for d in kept]) for plane in planes)


Geometry = tuple[int, int, tuple[int, ...], tuple[int, ...], torch.dtype]


def geometry(tensor: Tensor) -> Geometry:
    """What tells a tensor from all others that are alive: where its values are, and how."""
    # Without elements there is no address: the object, which is held, is its own.
    address = tensor.untyped_storage().data_ptr() if tensor.numel() else -id(tensor)
    return (
        address,
        int(tensor.storage_offset()),
        tuple(tensor.shape),
        tuple(tensor.stride()),
        tensor.dtype,
    )


class PlaneStore:
    """The planes of every tensor of a run, by where its values are; each tensor is held."""

    def __init__(self, labels: LabelSpace, running: Running) -> None:
        self._labels = labels
        self._running = running
        self._planes: dict[Geometry, Planes] = {}
        self._by_storage: dict[int, dict[Geometry, Tensor]] = {}
        self._alive: list[Tensor] = []

    def of(self, tensor: Tensor) -> Planes:
        """The planes of a tensor; none for one that no label has reached."""
        if tensor.dim() == 0 or tensor.layout != torch.strided:
            return ()
        return self._planes.get(geometry(tensor), ())

    def knows(self, tensor: Tensor) -> bool:
        """Whether the tensor, or one at its address, has been given planes."""
        return geometry(tensor) in self._planes

    def set(self, tensor: Tensor, planes: Planes) -> None:
        """Give a tensor its planes; it is held from then on, so that its address stays its own."""
        if tensor.dim() == 0 or tensor.layout != torch.strided:
            return
        key = geometry(tensor)
        self._planes[key] = planes
        self._by_storage.setdefault(key[0], {})[key] = tensor
        self._alive.append(tensor)

    @property
    def mark(self) -> int:
        """How many tensors were given planes, for ``let_go``."""
        return len(self._alive)

    def let_go(self, mark: int) -> None:
        """Forget the tensors that were given planes after ``mark``, but for what a model holds."""
        before = {geometry(tensor) for tensor in self._alive[:mark]}
        given = [(geometry(tensor), weakref.ref(tensor)) for tensor in self._alive[mark:]]
        given = [(key, reference) for key, reference in given if key not in before]
        del self._alive[mark:]
        for key in dict.fromkeys(key for key, _ in given):
            del self._by_storage[key[0]][key]
        for key, reference in given:
            tensor = reference()
            if tensor is not None:
                self._by_storage[key[0]][key] = tensor
                self._alive.append(tensor)
        for key in dict.fromkeys(key for key, _ in given):
            if key not in self._by_storage.get(key[0], {}):
                del self._planes[key]
                if not self._by_storage.get(key[0], True):
                    del self._by_storage[key[0]]

    def write(self, tensor: Tensor, planes: Planes) -> None:
        """Give a tensor that was written in place its planes, and every view of it theirs."""
        key = geometry(tensor)
        views = self._by_storage.get(key[0], {})
        before = self._planes.get(key, ())
        if len(views) <= 1 or (
            len(before) == len(planes)
            and all(torch.equal(a, b) for a, b in zip(before, planes, strict=True))
        ):
            self.set(tensor, planes)
            return
        involved = [*planes, *(p for g in views for p in self._planes.get(g, ()))]
        if len(planes) > 1 or any(len(self._planes.get(g, ())) > 1 for g in views):
            for plane in involved:
                self._labels.pin(plane, f"written through a view in {self._running.name}")
            return
        self.set(tensor, planes)
        flat = self._flat_labels(tensor)
        self._strided(flat, tensor).copy_(self._full(planes, tensor))
        for view in list(views.values()):
            self.set(view, self.compacted([self._strided(flat, view)]))

    def restride(self, source: Tensor, result: Tensor) -> Planes:
        """The planes of a tensor with other strides over the same storage as ``source``."""
        if len(self.of(source)) > 1:
            return ()
        return self.compacted([self._strided(self._flat_labels(source), result)])

    def compacted(self, fulls: Iterable[Tensor]) -> Planes:
        """The planes of full tensors of labels.

        A label that is the only one of its tensor must stay, or nothing would be left of it.
        """
        planes = []
        for full in fulls:
            plane = compact(full)
            if plane is not None:
                planes.append(plane)
            elif full.numel():
                self._labels.pin(full.reshape(-1)[:1], f"the only channel in {self._running.title}")
        return tuple(planes)

    def _flat_labels(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        flat = torch.full(
            (storage.nbytes() // tensor.element_size(),), FIXED, dtype=torch.int64, device="cpu"
        )
        for key, view in self._by_storage.get(storage.data_ptr(), {}).items():
            if self._planes[key] and view.element_size() == tensor.element_size():
                self._strided(flat, view).copy_(self._full(self._planes[key], view))
        return flat

    @staticmethod
    def _strided(flat: Tensor, like: Tensor) -> Tensor:
        return flat.as_strided(like.shape, like.stride(), like.storage_offset())

    @staticmethod
    def _full(planes: Planes, like: Tensor) -> Tensor:
        return (
            planes[0].expand(like.shape) if planes else torch.full(like.shape, FIXED, device="cpu")
        )
