"""Parts of the values: where channels are cut, and what the code says about the place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcprune.tracing._call import Call
from lcprune.tracing._planes import varying
from lcprune.tracing._sizes import expression_of

aten = torch.ops.aten

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
