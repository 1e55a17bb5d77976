"""Values that are picked: the patches of an image, and places that an index names."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.tracing._call import Call
from lcprune.tracing._planes import Planes, along, from_vector, varying
from lcprune.tracing._pointwise import merge

MASKS = (torch.bool, torch.uint8)


def unfold(call: Call) -> Any:
    """Patches: every channel becomes as many as a patch has positions, which go together."""
    source, kernel = call.args[0], call.args[1]
    out = call.run()
    labels = _channels(call, source, source.dim() - 3)
    if labels is not None:
        labels = labels.repeat_interleave(prod(kernel))
        call.flow.set(out, from_vector(labels, out.dim() - 2, out.dim()))
    return out


def fold(call: Call) -> Any:
    """Patches summed where they overlap: the positions of a channel's patch go together."""
    source, kernel = call.args[0], call.args[2]
    out = call.run()
    labels = _channels(call, source, source.dim() - 2)
    if labels is not None:
        blocks = labels.reshape(-1, prod(kernel))
        first = blocks[:, :1]
        call.flow.labels.join(blocks, first, f"the positions of a patch at {call.where}")
        call.flow.set(out, from_vector(first.reshape(-1), out.dim() - 3, out.dim()))
    return out


def _channels(call: Call, source: Tensor, dim: int) -> Tensor | None:
    """The labels along ``dim``; those that vary over anything else stay."""
    found = None
    for plane in call.flow.planes(source):
        if varying(plane) == {dim}:
            found = plane.reshape(-1)
        else:
            call.flow.labels.pin(plane, f"labels that are not channels at {call.where}")
    return found


def pick(call: Call) -> Any:
    """Values at places that an index names: labels go with them, unless it names channels."""
    out = call.run()
    source = call.args[0]
    picked = _picked(call, source)
    kept: Planes = ()
    for plane in call.flow.planes(source):
        if varying(plane) & picked:
            call.flow.labels.pin(plane, f"picked by an index, {call.where}")
        else:
            kept += (plane,)
            _produce(call, source, plane)
    call.flow.set(
        out,
        call.flow.compacted(call.run(p.expand(source.shape), *call.args[1:]) for p in kept),
    )
    for index in call.tensors()[1:]:
        for plane in call.flow.planes(index):
            call.flow.labels.pin(plane, f"an index with labels at {call.where}")
    return out


def gather(call: Call) -> Any:
    """Values that an index of their own shape names along one dimension; all others meet."""
    source, index = call.args[0], call.args[2]
    flow = call.flow
    dim = int(call.args[1]) % source.dim()
    operands = []
    for tensor in (source, index):
        shape = [1 if d == dim else size for d, size in enumerate(tensor.shape)]
        planes = flow.planes(tensor)
        for plane in planes:
            if dim in varying(plane):
                flow.labels.pin(plane, f"picked by an index, {call.where}")
        operands.append((tuple(shape), tuple(p for p in planes if dim not in varying(p))))
    out = call.run()
    shape = [1 if d == dim else size for d, size in enumerate(out.shape)]
    flow.set(out, merge(flow, operands, tuple(shape), f"a fixed size at {call.where}"))
    return out


def _produce(call: Call, table: Tensor, plane: Tensor) -> None:
    """Rows that data looks up in a table: its columns are filters, as those of an embedding."""
    flow = call.flow
    if flow.data.is_constant(table) and not all(map(flow.data.is_constant, call.tensors())):
        flow.labels.produce(plane)


def bag(call: Call) -> Any:
    """Sums or means of rows of a table: its columns are the channels."""
    table, flow = call.args[0], call.flow
    out = call.run()
    columns = along(flow.planes(table), 1)
    if columns is not None:
        flow.labels.produce(columns)
        flow.set(out[0], from_vector(columns.reshape(-1), 1, 2))
        if isinstance(flow.module, nn.EmbeddingBag):
            flow.size_attribute("embedding_dim", columns.reshape(-1))
    return out


def _picked(call: Call, source: Tensor) -> set[int]:
    if call.name != "aten.index":
        return {int(call.args[1]) % source.dim()}
    dims: set[int] = set()
    place = 0
    for index in call.args[1]:
        # A mask picks along as many dimensions as it has.
        width = index.dim() if index is not None and index.dtype in MASKS else 1
        if index is not None:
            dims |= set(range(place, place + width))
        place += width
    return dims
