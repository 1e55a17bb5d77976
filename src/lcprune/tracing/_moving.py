"""Moving values: the label plane moves with the same call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes, along, varying

aten = torch.ops.aten

RESHAPES = frozenset({aten.view, aten._unsafe_view, aten.reshape, aten.view_copy})
MOVES = frozenset(
    {
        aten.permute,
        aten.transpose,
        aten.t,
        aten.unsqueeze,
        aten.squeeze,
        aten.expand,
        aten.flip,
        aten.repeat,
        aten.pixel_shuffle,
        aten.pixel_unshuffle,
        aten.channel_shuffle,
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


def same(call: Call) -> Any:
    """The same values at the same places."""
    out = call.run()
    call.flow.set(out, call.flow.planes(call.args[0]))
    return out


def reshape(call: Call) -> Any:
    """A view: where it cuts the channels into blocks, the blocks are tied.

    The model computes the size of the blocks from the number of channels (as a channel shuffle
    does), so every block must lose the same places; the longest of the new dimensions is
    taken for the computed one.
    """
    out = call.run()
    source = call.args[0]
    moved = []
    for plane in call.flow.planes(source):
        full = plane.expand(source.shape).reshape(out.shape)
        for new in call.flow.compacted([full]):
            moved.append(_tied(call, plane, new))
    call.flow.set(out, tuple(moved))
    return out


def _tied(call: Call, plane: Tensor, new: Tensor) -> Tensor:
    if len(varying(new)) <= len(varying(plane)):
        return new
    longest = max(varying(new), key=lambda d: (new.shape[d], d))
    return call.flow.tie(new, longest, f"blocks at {call.where}")


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


def cut(call: Call) -> Any:
    """A part of the values: where channels are cut at places that code names, they must stay.

    The chunks of a ``chunk`` are tied instead, since their size follows the tensor's.
    """
    out = call.run()
    source = call.args[0]
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    planes: list[list[Tensor]] = [[] for _ in results]
    for plane in call.flow.planes(source):
        full = plane.expand(source.shape)
        pieces = [p for p in tree_leaves(call.run(full, *call.args[1:])) if isinstance(p, Tensor)]
        if not _cuts(call, plane, source, results):
            pass
        elif call.flow.tying_chunks and len({p.shape for p in pieces}) == 1:
            for piece in pieces[1:]:
                call.flow.labels.join(pieces[0], piece, f"chunks at {call.where}")
        else:
            call.flow.labels.pin(plane, f"cut at places that are fixed in code, {call.where}")
        for found, piece in zip(planes, pieces, strict=True):
            found += call.flow.compacted([piece])
    for result, found in zip(results, planes, strict=True):
        call.flow.set(result, tuple(found))
    return out


def _cuts(call: Call, plane: Tensor, source: Tensor, results: list[Tensor]) -> bool:
    if call.func.overloadpacket is aten.roll:
        return bool(varying(plane) & {d % source.dim() for d in call.argument(2, "dims", [])})
    if len(results) == 1 and results[0].shape == source.shape:
        return False
    if call.func.overloadpacket in (aten.split_with_sizes, aten.unsafe_split_with_sizes) or (
        call.func.overloadpacket in (aten.split, aten.unsafe_split)
    ):
        dim = call.argument(2, "dim", 0)
    else:
        dim = call.argument(1, "dim", 0)
    return dim % source.dim() in varying(plane)


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
    reason = f"a fixed size at {call.where}"
    if any(along(planes, dim) is not None for _, planes in operands):
        pieces = []
        for shape, planes in operands:
            plane = along(planes, dim)
            for other in planes:
                if other is not plane:
                    call.flow.labels.pin(other, reason)
            if plane is None:
                plane = torch.full((1,) * dims, -1)
            size = list(plane.shape)
            size[dim] = shape[dim]
            pieces.append(plane.expand(size))
        sizes = [max(p.shape[d] for p in pieces) for d in range(dims)]
        full = torch.cat(
            [p.expand([p.shape[d] if d == dim else sizes[d] for d in range(dims)]) for p in pieces],
            dim,
        )
        return call.flow.compacted([full])
    from lcprune.tracing._pointwise import merge

    shapes = [tuple(1 if d == dim else s for d, s in enumerate(shape)) for shape, _ in operands]
    common = [(shape, planes) for shape, (_, planes) in zip(shapes, operands, strict=True)]
    target = tuple(max(shape[d] for shape in shapes) for d in range(dims))
    return merge(call.flow, common, target, reason)


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
                ends = (torch.full((max(0, before),), -1), torch.full((max(0, after),), -1))
            pieces = torch.cat([_end(ends[0], plane, dim), pieces, _end(ends[1], plane, dim)], dim)
        planes.append(pieces)
    if call.flow.module_name in call.flow.pads:
        before, after = call.flow.pads[call.flow.module_name]
        call.flow.size_attribute("before", before)
        call.flow.size_attribute("after", after)
    call.flow.set(out, call.flow.compacted(planes))
    return out


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
