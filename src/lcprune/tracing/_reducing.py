"""Reductions and windows over positions; over channels only where nothing depends on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcprune.graph import FIXED
from lcprune.tracing._call import Call
from lcprune.tracing._planes import Planes, drop_dims, varying
from lcprune.tracing._pointwise import merge

aten = torch.ops.aten

REDUCTIONS = frozenset(
    {
        aten.mean,
        aten.sum,
        aten.amax,
        aten.amin,
        aten.max,
        aten.min,
        aten.var,
        aten.std,
        aten.var_mean,
        aten.std_mean,
        aten.prod,
        aten.linalg_vector_norm,
        aten.norm,
        aten.any,
        aten.all,
        aten.argmax,
        aten.argmin,
        aten.logsumexp,
    }
)
CHOICES = frozenset({aten.argmax, aten.argmin})
"""Reductions whose result names a channel instead of measuring all of them."""
EXTREMES = frozenset({aten.max, aten.min, aten.amax, aten.amin, aten.logsumexp})
"""Reductions whose result is the value of one of the channels, or close to it."""
SOFTMAXES = frozenset({aten._softmax, aten.softmax, aten._log_softmax, aten.log_softmax,
                       aten._safe_softmax})  # fmt: skip
AVERAGES = frozenset({aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d})
OVER_ONE_DIM = frozenset({aten.cumsum, aten.cumprod, aten.sort, aten.topk})


def reduction(call: Call) -> Any:
    """Labels stay where the reduction does not run over them; a statistic is of the kept ones."""
    source = call.args[0]
    flow = call.flow
    dims = _dims(call, source)
    kept: list[Tensor] = []
    measured = source
    for plane in flow.planes(source):
        over = varying(plane)
        if not over & set(dims):
            kept.append(plane)
        elif len(over) > 1 or call.func.overloadpacket in CHOICES:
            flow.labels.pin(plane, f"an operation across channels, {call.where}")
        else:
            measured, _ = flow.selected(measured, plane, *over)
            if call.func.overloadpacket in EXTREMES:
                flow.extremes.add(plane)
    out = call.run(measured, *call.args[1:])
    for result in tree_leaves(out):
        if isinstance(result, Tensor) and result.dim():
            keepdim = result.dim() == source.dim()
            flow.set(result, drop_dims(tuple(kept), dims, keepdim))
    return out


def softmax(call: Call) -> Any:
    """Shares of a whole along one dimension: the whole is that of the kept channels."""
    source = call.args[0]
    flow = call.flow
    dim = int(call.argument(1, "dim", -1)) % source.dim()
    planes: list[Tensor] = []
    measured, index = source, None
    for plane in flow.planes(source):
        if dim not in varying(plane):
            planes.append(plane)
        elif len(varying(plane)) > 1:
            flow.labels.pin(plane, f"an operation across channels, {call.where}")
        else:
            planes.append(plane)
            measured, index = flow.selected(source, plane, dim)
    out = call.run(measured, *call.args[1:])
    if index is not None:
        out = torch.zeros_like(source).index_copy(dim, index, out)
    flow.set(out, tuple(planes))
    return out


def glu(call: Call) -> Any:
    """One half gates the other, so both lose the same places."""
    source = call.args[0]
    flow = call.flow
    dim = int(call.argument(1, "dim", -1)) % source.dim()
    planes = []
    for plane in flow.planes(source):
        if dim in varying(plane):
            first, second = plane.chunk(2, dim)
            flow.labels.join(first, second, f"the halves of {call.where}")
            planes.append(first)
        else:
            planes.append(plane)
    out = call.run()
    flow.set(out, flow.compacted(plane.expand(out.shape) for plane in planes))
    return out


def _dims(call: Call, source: Tensor) -> list[int]:
    names = [argument.name for argument in call.func._schema.arguments]
    position = names.index("dim") if "dim" in names else None
    dims = None if position is None else call.argument(position, "dim")
    if isinstance(dims, int):
        dims = [dims]
    if not dims:
        return list(range(source.dim()))
    return [d % source.dim() for d in dims]


def over_one_dim(call: Call) -> Any:
    """An operation along one dimension, such as a softmax."""
    out = call.run()
    source = call.args[0]
    dim = int(call.argument(1, "dim", -1)) % source.dim()
    kept: list[Tensor] = []
    for plane in call.flow.planes(source):
        if dim in varying(plane):
            call.flow.labels.pin(plane, f"an operation across channels, {call.where}")
        else:
            kept.append(plane)
    for result in tree_leaves(out):
        if isinstance(result, Tensor):
            call.flow.set(result, tuple(kept))
    return out


def windows(call: Call) -> Any:
    """Pooling and resampling: positions change, channels do not."""
    source = call.args[0]
    neighbours = _neighbours(call)
    if neighbours is not None:
        return _over_neighbours(call, *neighbours)
    out = call.run()
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    dims = results[0].dim()
    planes: Planes = ()
    for plane in call.flow.planes(source):
        inner = [d for d in varying(plane) if d >= _first_position(call, dims)]
        if inner:
            call.flow.labels.pin(plane, f"channels among positions at {call.where}")
        else:
            planes += (plane,)
    for result in results:
        call.flow.set(result, planes)
    return out


def unpool(call: Call) -> Any:
    """Values put back where a pooling found them: channels are those of values and of places."""
    values, places = call.args[:2]
    shape = tuple(values.shape)
    operands = [(shape, call.flow.planes(values)), (shape, call.flow.planes(places))]
    planes = merge(call.flow, operands, shape, f"a fixed size at {call.where}")
    out = call.run()
    found: Planes = ()
    for plane in planes:
        if max(varying(plane)) >= _first_position(call, out.dim()):
            call.flow.labels.pin(plane, f"channels among positions at {call.where}")
        else:
            found += (plane,)
    call.flow.set(out, found)
    return out


def _neighbours(call: Call) -> tuple[int, int] | None:
    """The dimension of channels that are averaged with their neighbours, and those before one.

    As a local response norm does it: the channels lie among the positions, with constants at
    both ends, and there are as many means as channels.
    """
    source, planes = call.args[0], call.flow.planes(call.args[0])
    if call.func.overloadpacket not in AVERAGES or len(planes) != 1 or len(varying(planes[0])) != 1:
        return None
    (dim,) = varying(planes[0])
    place = dim - _first_position(call, source.dim())
    kernel, stride, padding = (
        [*call.argument(i, name, default)]
        for i, name, default in ((1, "kernel_size", ()), (2, "stride", ()), (3, "padding", (0,)))
    )
    known = (planes[0].reshape(-1) != FIXED).nonzero().reshape(-1)
    before = int(known[0])
    if (
        place < 0
        or (stride or kernel)[min(place, len(stride or kernel) - 1)] != 1
        or any(padding)
        or known.numel() != int(known[-1]) - before + 1
        or known.numel() != source.shape[dim] - kernel[place] + 1
    ):
        return None
    return dim, before


def _over_neighbours(call: Call, dim: int, before: int) -> Any:
    """Means of neighbours: slimmed, of those that are kept."""
    source, flow = call.args[0], call.flow
    (plane,) = flow.planes(source)
    part, index = flow.selected(source, plane, dim)
    out = call.run(part, *call.args[1:])
    channels = plane.narrow(dim, before, int((plane != FIXED).sum()))
    if index is not None:
        size = [*out.shape]
        size[dim] = channels.shape[dim]
        _, left = flow.selected(channels, channels, dim)
        assert left is not None, "what is not kept is not a constant"
        out = out.new_zeros(size).index_copy(dim, left, out)
    flow.set(out, (channels,))
    return out


def _first_position(call: Call, dims: int) -> int:
    name = call.name
    for spatial in (1, 2, 3):
        if f"{spatial}d" in name:
            return dims - spatial
    return 2
