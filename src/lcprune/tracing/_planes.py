"""Label planes: which channel each element of a tensor belongs to.

A plane has as many dimensions as its tensor, and size 1 along every dimension over which the
label does not change; it broadcasts to the tensor's shape. A tensor can have several planes (a
weight has one per dimension), each of which varies over dimensions of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lcprune.graph import FIXED

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
