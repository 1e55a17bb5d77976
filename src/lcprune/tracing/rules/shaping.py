"""Other shapes: what the code says about each size, and what that does to the channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes, along, from_vector, varying, vector
from lcprune.tracing._rule import rule
from lcprune.tracing._sizes import Expression, Kept, expression_of
from lcprune.tracing.rules.moving import moved


@rule("view", "_unsafe_view", "reshape", "view_copy")
def reshape(call: Call) -> Any:
    """A view: where it cuts the channels into blocks, the blocks are tied.

    Every block loses the same places, or whole blocks go: whichever of the new dimensions has a
    size that the code leaves open, reads from a shape or keeps as an attribute; of several the
    longest.
    """
    out = call.run()
    source = call.args[0]
    sizes = asked_shape(call, out)
    found = []
    for plane in call.planes(source):
        full = plane.expand(source.shape).reshape(out.shape)
        for new in call.compacted([full]):
            found.append(_tied(call, plane, new, sizes))
    planes = apart(call, found)
    require_shape(call, out, planes, sizes)
    call.set(out, planes)
    return out


def apart(call: Call, planes: list[Tensor]) -> Planes:
    """Of several sets of channels that fall on one dimension, only the largest goes on."""
    found: list[Tensor] = []
    for plane in sorted(planes, key=lambda plane: -len(set(plane.reshape(-1).tolist()))):
        if any(varying(plane) & varying(other) for other in found):
            call.pin(plane, f"mixed with other channels at {call.where}")
        else:
            found.append(plane)
    return tuple(found)


def _tied(call: Call, plane: Tensor, new: Tensor, sizes: tuple[Expression, ...]) -> Tensor:
    if len(varying(new)) <= len(varying(plane)):
        return new
    open_ = [d for d in sorted(varying(new)) if not isinstance(sizes[d], int) or sizes[d] == -1]
    kept = _kept_dim(call, new, open_ or sorted(varying(new)))
    if len(open_) > 1 and call.flow.recording:
        call.flow.notes.choose(_first_row(new, kept), sizes[kept])
    return call.tie(new, kept, f"blocks at {call.where}")


def _first_row(plane: Tensor, dim: int) -> Tensor:
    for other in varying(plane) - {dim}:
        plane = plane.narrow(other, 0, 1)
    return plane.reshape(-1)


def _kept_dim(call: Call, plane: Tensor, dims: list[int]) -> int:
    """The dimension whose places can go one by one; the reference reads it from what is kept."""
    kept = call.kept(plane)
    if kept is not None:
        for dim in dims:
            first = kept
            for other in varying(plane) - {dim}:
                first = first.narrow(other, 0, 1)
            if bool((first == kept).all()):
                return dim
    if call.flow.running.name in call.flow.whole_heads:
        return dims[0]
    # Not by the size: images that lie side by side hold the same channels.
    return max(dims, key=lambda d: (len(set(_first_row(plane, d).tolist())), d))


def asked_shape(call: Call, out: Tensor) -> tuple[Expression, ...]:
    """Where each size of a result comes from; -1 for one that follows from the others."""
    asked = call.asked
    if asked.shape is not None and len(asked.shape) == out.dim():
        return tuple(expression_of(size) for size in asked.shape)
    if not asked.sized:
        return (-1,) * out.dim()
    return tuple(asked.expression(size) if size in asked.sized else -1 for size in out.shape)


def require_shape(call: Call, out: Tensor, planes: Planes, sizes: tuple[Expression, ...]) -> None:
    """Note which sizes of a shape the labels of a result must fill."""
    for dim, size in enumerate(sizes):
        plane = along(planes, dim)
        if size == -1 or (plane is not None and varying(plane) != {dim}):
            continue
        call.require(vector(plane, dim, out.shape[dim]), size)


@rule(
    "zeros",
    "ones",
    "full",
    "empty",
    "rand",
    "randn",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "eye",
)
def create(call: Call) -> Any:
    """A new tensor: sizes that were read from a shape bring the channels of that shape."""
    out = call.run()
    call.set(out, _from_sizes(call, out, range(out.dim())))
    return out


@rule("expand")
def expand(call: Call) -> Any:
    """Values repeated: labels stay, and new sizes bring the channels of their shape."""
    out = call.run()
    source = call.args[0]
    new = [d for d in range(out.dim()) if d < out.dim() - source.dim()
           or (source.shape[d - out.dim()] == 1 and out.shape[d] > 1)]  # fmt: skip
    planes = moved(call, source) + _from_sizes(call, out, new)
    require_shape(call, out, planes, asked_shape(call, out))
    call.set(out, planes)
    return out


def _from_sizes(call: Call, out: Tensor, dims: Iterable[int]) -> Planes:
    sizes = asked_shape(call, out)
    planes: Planes = ()
    for dim in dims:
        size = sizes[dim]
        if isinstance(size, Kept) and size.labels.numel() == out.shape[dim]:
            planes += from_vector(size.labels, dim, out.dim())
        elif not isinstance(size, int) and out.shape[dim] > 1:
            labels = call.fresh(out.shape[dim])
            call.require(labels, size)
            planes += from_vector(labels, dim, out.dim())
    return planes
