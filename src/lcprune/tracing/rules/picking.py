"""Parts of the values: slices, the patches of an image, and places that an index names."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes, along, from_vector, varying
from lcprune.tracing._rule import rule
from lcprune.tracing._sizes import expression_of

aten = torch.ops.aten

SPLITS = frozenset(
    {aten.split, aten.split_with_sizes, aten.unsafe_split, aten.unsafe_split_with_sizes}
)
MASKS = (torch.bool, torch.uint8)


@rule("im2col")
def unfold(call: Call) -> Any:
    """Patches: every channel becomes as many as a patch has positions, which go together."""
    source, kernel = call.args[0], call.args[1]
    out = call.run()
    labels = _channels(call, source, source.dim() - 3)
    if labels is not None:
        labels = labels.repeat_interleave(prod(kernel))
        call.set(out, from_vector(labels, out.dim() - 2, out.dim()))
    return out


@rule("col2im")
def fold(call: Call) -> Any:
    """Patches summed where they overlap: the positions of a channel's patch go together."""
    source, kernel = call.args[0], call.args[2]
    out = call.run()
    labels = _channels(call, source, source.dim() - 2)
    if labels is not None:
        blocks = labels.reshape(-1, prod(kernel))
        first = blocks[:, :1]
        call.join(blocks, first, f"the positions of a patch at {call.where}")
        call.set(out, from_vector(first.reshape(-1), out.dim() - 3, out.dim()))
    return out


def _channels(call: Call, source: Tensor, dim: int) -> Tensor | None:
    """The labels along ``dim``; those that vary over anything else stay."""
    found = None
    for plane in call.planes(source):
        if varying(plane) == {dim}:
            found = plane.reshape(-1)
        else:
            call.pin(plane, f"labels that are not channels at {call.where}")
    return found


@rule("index", "index_select")
def pick(call: Call) -> Any:
    """Values at places that an index names: labels go with them, unless it names channels."""
    out = call.run()
    source = call.args[0]
    picked = _picked(call, source)
    kept: Planes = ()
    for plane in call.planes(source):
        if varying(plane) & picked:
            call.pin(plane, f"picked by an index, {call.where}")
        else:
            kept += (plane,)
            _produce(call, source, plane)
    call.set(
        out,
        call.compacted(call.run(p.expand(source.shape), *call.args[1:]) for p in kept),
    )
    for index in call.tensors()[1:]:
        for plane in call.planes(index):
            call.pin(plane, f"an index with labels at {call.where}")
    return out


@rule("gather")
def gather(call: Call) -> Any:
    """Values that an index of their own shape names along one dimension; all others meet."""
    source, index = call.args[0], call.args[2]
    dim = int(call.args[1]) % source.dim()
    operands = []
    for tensor in (source, index):
        shape = [1 if d == dim else size for d, size in enumerate(tensor.shape)]
        planes = call.planes(tensor)
        for plane in planes:
            if dim in varying(plane):
                call.pin(plane, f"picked by an index, {call.where}")
        operands.append((tuple(shape), tuple(p for p in planes if dim not in varying(p))))
    out = call.run()
    shape = [1 if d == dim else size for d, size in enumerate(out.shape)]
    call.set(out, call.merge(operands, tuple(shape)))
    return out


@rule(
    *(f"{name}{place}" for name in ("scatter", "scatter_add", "scatter_reduce")
      for place in ("", "_")),
)  # fmt: skip
def scatter(call: Call) -> Any:
    """Values put where an index names places along one dimension; over all others they meet."""
    source, index = call.args[0], call.args[2]
    dim = int(call.args[1]) % source.dim()
    values = [t for t in call.tensors() if t.dim()]
    operands: list[tuple[tuple[int, ...], Planes]] = []
    for tensor in values:
        kept: Planes = ()
        for plane in call.planes(tensor):
            over = varying(plane)
            if dim in over or any(index.shape[d] != tensor.shape[d] for d in over):
                call.pin(plane, f"picked by an index, {call.where}")
            else:
                kept += (plane,)
        shape = [1 if d == dim else size for d, size in enumerate(index.shape)]
        operands.append((tuple(shape), kept))
    shape = [1 if d == dim else size for d, size in enumerate(index.shape)]
    planes = call.merge(operands, tuple(shape))
    out = call.run()
    if out is source:
        call.flow.planes.write(out, planes)
    else:
        call.set(out, planes)
    return out


@rule("index_put", "index_put_", optional=("_index_put_impl_", "_unsafe_index_put"))
def put(call: Call) -> Any:
    """Values written at places that an index names: channels meet, unless it names channels."""
    source, indices, values = call.args[:3]
    picked = _picked(call, source, indices)
    kept: Planes = ()
    for plane in call.planes(source):
        if varying(plane) & picked:
            call.pin(plane, f"picked by an index, {call.where}")
        else:
            kept += (plane,)
    for index in indices:
        for plane in call.planes(index) if index is not None else ():
            call.pin(plane, f"an index with labels at {call.where}")
    written = [aten.index(plane.expand(source.shape), indices) for plane in kept]
    shape = aten.index(source, indices).shape
    out = call.run()
    if prod(shape):
        there = call.compacted(written)
        call.merge([(shape, there), (tuple(values.shape), call.planes(values))], tuple(shape))
    if call.func.overloadpacket in (aten.index_put, getattr(aten, "_unsafe_index_put", None)):
        call.set(out, kept)
    else:
        call.flow.planes.write(out, kept)
    return out


def _produce(call: Call, table: Tensor, plane: Tensor) -> None:
    """Rows that data looks up in a table: its columns are filters, as those of an embedding."""
    if call.is_constant(table) and not all(map(call.is_constant, call.tensors())):
        call.produce(plane)


@rule("_embedding_bag", "_embedding_bag_forward_only")
def bag(call: Call) -> Any:
    """Sums or means of rows of a table: its columns are the channels."""
    table = call.args[0]
    out = call.run()
    columns = along(call.planes(table), 1)
    if columns is not None:
        call.produce(columns)
        call.set(out[0], from_vector(columns.reshape(-1), 1, 2))
        if isinstance(call.module, nn.EmbeddingBag):
            call.size_attribute("embedding_dim", columns.reshape(-1))
    return out


def _picked(call: Call, source: Tensor, indices: Any = None) -> set[int]:
    if call.name != "aten.index" and indices is None:
        return {int(call.args[1]) % source.dim()}
    dims: set[int] = set()
    first = 0
    for index in call.args[1]:
        # A mask picks along as many dimensions as it has.
        width = index.dim() if index is not None and index.dtype in MASKS else 1
        if index is not None:
            dims |= set(range(first, first + width))
        first += width
    return dims


@rule(
    "slice",
    "select",
    "narrow",
    "split",
    "split_with_sizes",
    "unbind",
    "roll",
    "unsafe_split",
    "unsafe_split_with_sizes",
)
def cut(call: Call) -> Any:
    """A part of the values: where channels are cut at places that code names, it must fit them.

    The chunks of a ``chunk`` are tied instead, since their size follows the tensor's.
    """
    out = call.run()
    source = call.args[0]
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    planes: list[list[Tensor]] = [[] for _ in results]
    for plane in call.planes(source):
        full = plane.expand(source.shape)
        pieces = [p for p in tree_leaves(call.run(full, *call.args[1:])) if isinstance(p, Tensor)]
        if _cuts(call, plane, source, results):
            _fit(call, plane, pieces)
        for found, piece in zip(planes, pieces, strict=True):
            found += call.compacted([piece])
    for result, found in zip(results, planes, strict=True):
        call.set(result, tuple(found))
    return out


def _fit(call: Call, plane: Tensor, pieces: list[Tensor]) -> None:
    """Tie chunks; of other cuts note the sizes that the code gives them."""
    packet = call.func.overloadpacket
    dim = _cut_dim(call) % plane.dim()
    labels = plane.reshape(-1)
    if call.asked.chunk and len({p.shape for p in pieces}) == 1:
        for piece in pieces[1:]:
            call.join(pieces[0], piece, f"chunks at {call.where}")
    elif varying(plane) != {dim}:
        call.pin(plane, f"cut at places that are fixed in code, {call.where}")
    elif packet is aten.slice and call.argument(4, "step", 1) == 1:
        _fit_slice(call, labels)
    elif packet in SPLITS:
        lengths = [piece.shape[dim] for piece in pieces]
        sizes = [call.asked.expression(length) for length in lengths]
        if len(call.asked.sections) == len(lengths):
            sizes = [expression_of(size) for size in call.asked.sections]
        parts = torch.split_with_sizes(labels, lengths)
        for part, size in zip(parts, sizes, strict=True):
            call.require(part, size)
    else:
        call.pin(plane, f"cut at places that are fixed in code, {call.where}")


def _fit_slice(call: Call, labels: Tensor) -> None:
    for bound in (call.argument(2, "start"), call.argument(3, "end")):
        if bound is None or bound == 0 or bound >= labels.numel():
            continue
        if bound < 0:
            call.require(labels[bound:], -bound)
        else:
            call.require(labels[:bound], call.asked.expression(bound))


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
