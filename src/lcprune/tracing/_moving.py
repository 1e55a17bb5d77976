"""Moving values: the label plane moves with the same call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcprune.tracing._flow import Call
from lcprune.tracing._graph import FIXED
from lcprune.tracing._planes import Planes, along, from_vector, varying, vector
from lcprune.tracing._sizes import Expression, Kept, expression_of

aten = torch.ops.aten

RESHAPES = frozenset({aten.view, aten._unsafe_view, aten.reshape, aten.view_copy})
MOVES = frozenset(
    {
        aten.permute,
        aten.transpose,
        aten.t,
        aten.unsqueeze,
        aten.squeeze,
        aten.flip,
        aten.repeat,
        aten.pixel_unshuffle,
        aten.diagonal,
    }
)
SAME = frozenset({aten.clone, aten.alias, aten.detach, aten.contiguous, aten._to_copy,
                  aten.lift_fresh, aten.lift_fresh_copy, aten.detach_, aten.requires_grad_,
                  aten._conj, aten.resolve_conj, aten.resolve_neg, aten.positive})  # fmt: skip
CUTS = frozenset(
    {
        aten.slice,
        aten.select,
        aten.narrow,
        aten.split,
        aten.split_with_sizes,
        aten.unbind,
        aten.roll,
        aten.unsafe_split,
        aten.unsafe_split_with_sizes,
    }
)
SPLITS = frozenset(
    {aten.split, aten.split_with_sizes, aten.unsafe_split, aten.unsafe_split_with_sizes}
)
CREATIONS = frozenset(
    {
        aten.zeros,
        aten.ones,
        aten.full,
        aten.empty,
        aten.rand,
        aten.randn,
        aten.new_zeros,
        aten.new_ones,
        aten.new_full,
        aten.new_empty,
    }
)


def same(call: Call) -> Any:
    """The same values at the same places."""
    out = call.run()
    call.flow.set(out, call.flow.planes(call.args[0]))
    return out


def reshape(call: Call) -> Any:
    """A view: where it cuts the channels into blocks, the blocks are tied.

    Every block loses the same places, or whole blocks go: whichever of the new dimensions has a
    size that the code leaves open, reads from a shape or keeps as an attribute; of several the
    longest.
    """
    out = call.run()
    source = call.args[0]
    sizes = asked_shape(call, out)
    moved = []
    for plane in call.flow.planes(source):
        full = plane.expand(source.shape).reshape(out.shape)
        for new in call.flow.compacted([full]):
            moved.append(_tied(call, plane, new, sizes))
    planes = _apart(call, moved)
    require_shape(call, out, planes, sizes)
    call.flow.set(out, planes)
    return out


def _apart(call: Call, planes: list[Tensor]) -> Planes:
    """Of several sets of channels that fall on one dimension, only the largest goes on."""
    found: list[Tensor] = []
    for plane in sorted(planes, key=lambda plane: -len(set(plane.reshape(-1).tolist()))):
        if any(varying(plane) & varying(other) for other in found):
            call.flow.labels.pin(plane, f"mixed with other channels at {call.where}")
        else:
            found.append(plane)
    return tuple(found)


def _tied(call: Call, plane: Tensor, new: Tensor, sizes: tuple[Expression, ...]) -> Tensor:
    if len(varying(new)) <= len(varying(plane)):
        return new
    open_ = [d for d in sorted(varying(new)) if not isinstance(sizes[d], int) or sizes[d] == -1]
    kept = _kept_dim(call, new, open_ or sorted(varying(new)))
    return call.flow.tie(new, kept, f"blocks at {call.where}")


def _kept_dim(call: Call, plane: Tensor, dims: list[int]) -> int:
    """The dimension whose places can go one by one; the reference reads it from what is kept."""
    kept = call.flow.kept(plane)
    if kept is not None:
        for dim in dims:
            first = kept
            for other in varying(plane) - {dim}:
                first = first.narrow(other, 0, 1)
            if bool((first == kept).all()):
                return dim
    if call.flow.module_name in call.flow.whole_heads:
        return dims[0]
    return max(dims, key=lambda d: (plane.shape[d], d))


def asked_shape(call: Call, out: Tensor) -> tuple[Expression, ...]:
    """Where each size of a result comes from; -1 for one that follows from the others."""
    asked = call.flow.asked
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
        call.flow.require(vector(plane, dim, out.shape[dim]), size, call.where)


def create(call: Call) -> Any:
    """A new tensor: sizes that were read from a shape bring the channels of that shape."""
    out = call.run()
    call.flow.set(out, _from_sizes(call, out, range(out.dim())))
    return out


def expand(call: Call) -> Any:
    """Values repeated: labels stay, and new sizes bring the channels of their shape."""
    out = call.run()
    source = call.args[0]
    new = [d for d in range(out.dim()) if d < out.dim() - source.dim()
           or (source.shape[d - out.dim()] == 1 and out.shape[d] > 1)]  # fmt: skip
    planes = _moved(call, source) + _from_sizes(call, out, new)
    require_shape(call, out, planes, asked_shape(call, out))
    call.flow.set(out, planes)
    return out


def _from_sizes(call: Call, out: Tensor, dims: Iterable[int]) -> Planes:
    sizes = asked_shape(call, out)
    planes: Planes = ()
    for dim in dims:
        size = sizes[dim]
        if isinstance(size, Kept) and size.labels.numel() == out.shape[dim]:
            planes += from_vector(size.labels, dim, out.dim())
    return planes


def move(call: Call) -> Any:
    """Labels go where their values go."""
    out = call.run()
    source = call.args[0]
    call.flow.set(out, _moved(call, source))
    return out


def _moved(call: Call, source: Tensor) -> Planes:
    return call.flow.compacted(
        call.run(plane.expand(source.shape), *call.args[1:]) for plane in call.flow.planes(source)
    )


def channel_shuffle(call: Call) -> Any:
    """Blocks of channels are dealt out like cards, so all lose the same places."""
    source, groups = call.args[0], int(call.args[1])
    dim = source.dim() - 3
    _tie_rows(call, source, dim, lambda labels: labels.view(groups, -1))
    return move(call)


def pixel_shuffle(call: Call) -> Any:
    """The channels that become the pixels of one channel go together."""
    source, factor = call.args[0], int(call.args[1])
    dim = source.dim() - 3
    _tie_rows(call, source, dim, lambda labels: labels.view(-1, factor * factor).t())
    out = call.run()
    plane = along(call.flow.planes(source), dim)
    labels = vector(plane, dim, source.shape[dim])
    call.flow.set(out, from_vector(labels[:: factor * factor], dim, out.dim()))
    return out


def _tie_rows(call: Call, source: Tensor, dim: int, rows: Callable[[Tensor], Tensor]) -> None:
    for plane in call.flow.planes(source):
        if varying(plane) != {dim}:
            call.flow.labels.pin(plane, f"labels that are not channels at {call.where}")
        else:
            labels = rows(plane.reshape(-1))
            call.flow.labels.join(labels, labels[:1], f"blocks at {call.where}")


def in_place(call: Call) -> Any:
    """A view in place: the same tensor with another shape."""
    source = call.args[0]
    moves = getattr(aten, call.func.overloadpacket.__name__.removesuffix("_"))
    planes = [
        moves(plane.expand(source.shape), *call.args[1:]) for plane in call.flow.planes(source)
    ]
    out = call.run()
    call.flow.set(out, call.flow.compacted(planes))
    return out


def cut(call: Call) -> Any:
    """A part of the values: where channels are cut at places that code names, it must fit them.

    The chunks of a ``chunk`` are tied instead, since their size follows the tensor's.
    """
    out = call.run()
    source = call.args[0]
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    planes: list[list[Tensor]] = [[] for _ in results]
    for plane in call.flow.planes(source):
        full = plane.expand(source.shape)
        pieces = [p for p in tree_leaves(call.run(full, *call.args[1:])) if isinstance(p, Tensor)]
        if _cuts(call, plane, source, results):
            _fit(call, plane, pieces)
        for found, piece in zip(planes, pieces, strict=True):
            found += call.flow.compacted([piece])
    for result, found in zip(results, planes, strict=True):
        call.flow.set(result, tuple(found))
    return out


def _fit(call: Call, plane: Tensor, pieces: list[Tensor]) -> None:
    """Tie chunks; of other cuts note the sizes that the code gives them."""
    flow, packet = call.flow, call.func.overloadpacket
    dim = _cut_dim(call) % plane.dim()
    labels = plane.reshape(-1)
    if flow.asked.chunk and len({p.shape for p in pieces}) == 1:
        for piece in pieces[1:]:
            flow.labels.join(pieces[0], piece, f"chunks at {call.where}")
    elif varying(plane) != {dim}:
        flow.labels.pin(plane, f"cut at places that are fixed in code, {call.where}")
    elif packet is aten.slice and call.argument(4, "step", 1) == 1:
        _fit_slice(call, labels)
    elif packet in SPLITS:
        lengths = [piece.shape[dim] for piece in pieces]
        sizes = [flow.asked.expression(length) for length in lengths]
        if len(flow.asked.sections) == len(lengths):
            sizes = [expression_of(size) for size in flow.asked.sections]
        parts = torch.split_with_sizes(labels, lengths)
        for part, size in zip(parts, sizes, strict=True):
            flow.require(part, size, call.where)
    else:
        flow.labels.pin(plane, f"cut at places that are fixed in code, {call.where}")


def _fit_slice(call: Call, labels: Tensor) -> None:
    flow = call.flow
    for place in (call.argument(2, "start"), call.argument(3, "end")):
        if place is None or place == 0 or place >= labels.numel():
            continue
        if place < 0:
            flow.require(labels[place:], -place, call.where)
        else:
            flow.require(labels[:place], flow.asked.expression(place), call.where)


def _cuts(call: Call, plane: Tensor, source: Tensor, results: list[Tensor]) -> bool:
    if call.func.overloadpacket is aten.roll:
        return bool(varying(plane) & {d % source.dim() for d in call.argument(2, "dims", [])})
    if len(results) == 1 and results[0].shape == source.shape:
        return False
    return _cut_dim(call) % source.dim() in varying(plane)


def _cut_dim(call: Call) -> int:
    if call.func.overloadpacket in SPLITS:
        return int(call.argument(2, "dim", 0))
    if call.func.overloadpacket is aten.roll:
        return int([*call.argument(2, "dims", []), 0][0])
    return int(call.argument(1, "dim", 0))


def concatenate(call: Call) -> Any:
    """Labels one after the other along the dimension, joined over all others."""
    tensors = [t for t in call.args[0] if t.numel()]
    out = call.run()
    dim = call.argument(1, "dim", 0) % out.dim()
    if call.func.overloadpacket is aten.stack:
        operands = [
            (t.unsqueeze(dim).shape, tuple(p.unsqueeze(dim) for p in call.flow.planes(t)))
            for t in tensors
        ]
    else:
        operands = [(t.shape, call.flow.planes(t)) for t in tensors]
    call.flow.set(out, _concatenated(call, operands, dim, out.dim()))
    return out


def _concatenated(
    call: Call, operands: list[tuple[torch.Size, Planes]], dim: int, dims: int
) -> Planes:
    from lcprune.tracing._pointwise import merge

    reason = f"a fixed size at {call.where}"
    shapes = [tuple(1 if d == dim else s for d, s in enumerate(shape)) for shape, _ in operands]
    target = tuple(max(shape[d] for shape in shapes) for d in range(dims))
    others = [tuple(p for p in planes if dim not in varying(p)) for _, planes in operands]
    merged = merge(call.flow, list(zip(shapes, others, strict=True)), target, reason)
    if all(along(planes, dim) is None for _, planes in operands):
        return merged
    return _apart(call, [*_laid_out(call, operands, dim), *merged])


def _laid_out(
    call: Call, operands: list[tuple[torch.Size, Planes]], dim: int
) -> tuple[Tensor, ...]:
    """The planes that vary along ``dim``, one behind the other."""
    pieces = []
    for shape, planes in operands:
        plane = along(planes, dim)
        if plane is None:
            plane = torch.full((1,) * len(shape), FIXED, device="cpu")
        size = list(plane.shape)
        size[dim] = shape[dim]
        pieces.append(plane.expand(size))
    sizes = [max(p.shape[d] for p in pieces) for d in range(pieces[0].dim())]
    full = torch.cat(
        [p.expand([p.shape[d] if d == dim else s for d, s in enumerate(sizes)]) for p in pieces],
        dim,
    )
    return call.flow.compacted([full])


def pad(call: Call) -> Any:
    """Constants around the values; around the channels only by a ``ChannelPad``."""
    out = call.run()
    source, amounts = call.args[0], call.args[1]
    planes = []
    for plane in call.flow.planes(source):
        pieces = plane
        for i in range(len(amounts) // 2):
            dim = source.dim() - 1 - i
            before, after = amounts[2 * i], amounts[2 * i + 1]
            if plane.shape[dim] == 1 or (before == 0 and after == 0):
                continue
            ends = call.flow.pads.get(call.flow.module_name)
            if before < 0 or after < 0:
                call.flow.labels.pin(plane, f"cut by an amount fixed in code, {call.where}")
                start, end = max(0, -before), pieces.shape[dim] - max(0, -after)
                pieces = pieces.narrow(dim, start, end - start)
            if ends is None:
                ends = (_constants(before), _constants(after))
            pieces = torch.cat([_end(ends[0], plane, dim), pieces, _end(ends[1], plane, dim)], dim)
        planes.append(pieces)
    if call.flow.module_name in call.flow.pads:
        before, after = call.flow.pads[call.flow.module_name]
        call.flow.size_attribute("before", before)
        call.flow.size_attribute("after", after)
    call.flow.set(out, call.flow.compacted(planes))
    return out


def _constants(count: int) -> Tensor:
    return torch.full((max(0, count),), FIXED, device="cpu")


def _end(labels: Tensor, plane: Tensor, dim: int) -> Tensor:
    shape = [1] * plane.dim()
    shape[dim] = labels.numel()
    size = list(plane.shape)
    size[dim] = labels.numel()
    return labels.reshape(shape).expand(size)


def restride(call: Call) -> Any:
    """Other strides over the same storage."""
    source = call.args[0]
    if call.func.overloadpacket is aten.as_strided_:
        planes = call.flow.planes(source)
        shape = tuple(source.shape)
        out = call.run()
        call.flow.set(out, planes if tuple(out.shape) == shape else call.flow.restride(source, out))
        return out
    out = call.run()
    call.flow.set(out, call.flow.restride(source, out))
    return out
