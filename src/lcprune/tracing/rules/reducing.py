"""Reductions and windows over positions; over channels only where nothing depends on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcprune.graph import FIXED
from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes, drop_dims, varying
from lcprune.tracing._rule import rule
from lcprune.tracing.rules.joining import fixed_pads

aten = torch.ops.aten

CHOICES = frozenset(
    {aten.argmax, aten.argmin, aten.median, aten.nanmedian, aten.mode, aten.kthvalue}
)
"""Reductions whose result names a channel instead of measuring all of them."""
EXTREMES = frozenset({aten.max, aten.min, aten.amax, aten.amin, aten.aminmax, aten.logsumexp})
"""Reductions whose result is the value of one of the channels, or close to it."""
AVERAGES = frozenset({aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d})


@rule(
    "mean",
    "sum",
    "amax",
    "amin",
    "aminmax",
    "max",
    "min",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "prod",
    "linalg_vector_norm",
    "norm",
    "any",
    "all",
    "argmax",
    "argmin",
    "logsumexp",
    "median",
    "nanmedian",
    "mode",
    "kthvalue",
)
def reduction(call: Call) -> Any:
    """Labels stay where the reduction does not run over them; a statistic is of the kept ones."""
    source = call.args[0]
    dims = _dims(call, source)
    kept: list[Tensor] = []
    measured = source
    for plane in call.planes(source):
        over = varying(plane)
        if not over & set(dims):
            kept.append(plane)
        elif len(over) > 1 or call.func.overloadpacket in CHOICES:
            call.pin(plane, f"an operation across channels, {call.where}")
        else:
            measured, _ = call.selected(measured, plane, *over)
            if call.func.overloadpacket in EXTREMES:
                call.flow.extremes.add(plane)
    out = call.run(measured, *call.args[1:])
    for result in tree_leaves(out):
        if isinstance(result, Tensor) and result.dim():
            keepdim = result.dim() == source.dim()
            call.set(result, drop_dims(tuple(kept), dims, keepdim))
    return out


@rule("_softmax", "softmax", "_log_softmax", "log_softmax", optional=("_safe_softmax",))
def softmax(call: Call) -> Any:
    """Shares of a whole along one dimension: the whole is that of the kept channels."""
    source = call.args[0]
    dim = int(call.argument(1, "dim", -1)) % source.dim()
    planes: list[Tensor] = []
    measured, index = source, None
    for plane in call.planes(source):
        if dim not in varying(plane):
            planes.append(plane)
        elif len(varying(plane)) > 1:
            call.pin(plane, f"an operation across channels, {call.where}")
        else:
            planes.append(plane)
            measured, index = call.selected(source, plane, dim)
    out = call.run(measured, *call.args[1:])
    if index is not None:
        out = torch.zeros_like(source).index_copy(dim, index, out)
    call.set(out, tuple(planes))
    return out


@rule("glu")
def glu(call: Call) -> Any:
    """One half gates the other, so both lose the same places."""
    source = call.args[0]
    dim = int(call.argument(1, "dim", -1)) % source.dim()
    planes = []
    for plane in call.planes(source):
        if dim in varying(plane):
            first, second = plane.chunk(2, dim)
            call.join(first, second, f"the halves of {call.where}")
            planes.append(first)
        else:
            planes.append(plane)
    out = call.run()
    call.set(out, call.compacted(plane.expand(out.shape) for plane in planes))
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


@rule("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "sort", "topk")
def over_one_dim(call: Call) -> Any:
    """An operation along one dimension, such as a softmax."""
    out = call.run()
    source = call.args[0]
    place = 2 if call.func.overloadpacket is aten.topk else 1
    dim = int(call.argument(place, "dim", -1)) % source.dim()
    kept: list[Tensor] = []
    for plane in call.planes(source):
        if dim in varying(plane):
            call.pin(plane, f"an operation across channels, {call.where}")
        else:
            kept.append(plane)
    for result in tree_leaves(out):
        if isinstance(result, Tensor):
            call.set(result, tuple(kept))
    return out


WINDOWS = (
    *(f"{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)),
    *(f"max_pool{n}d_with_indices" for n in (2, 3)),
    *(f"adaptive_{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)),
    *(f"_adaptive_avg_pool{n}d" for n in (2, 3)),
    *(f"upsample_nearest{n}d" for n in (1, 2, 3)),
    *(f"upsample_{mode}" for mode in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")),
    *(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
    *(f"_upsample_{mode}2d_aa" for mode in ("bilinear", "bicubic")),
    *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
    "fractional_max_pool2d",
    "grid_sampler_2d",
    "grid_sampler_3d",
)
"""Pooling, resampling and padding with the values of neighbours."""


@rule(optional=WINDOWS)
def windows(call: Call) -> Any:
    """Pooling and resampling: positions change, channels do not."""
    source = call.args[0]
    neighbours = _neighbours(call)
    if neighbours is not None:
        return _over_neighbours(call, *neighbours)
    for plane in call.planes(call.args[1]) if "grid_sampler" in call.name else ():
        call.pin(plane, f"the places that {call.where} reads")
    out = call.run()
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    dims = results[0].dim()
    planes: Planes = ()
    for plane in call.planes(source):
        inner = [d for d in varying(plane) if d >= _first_position(call, dims)]
        if inner:
            call.pin(plane, f"channels among positions at {call.where}")
        else:
            planes += (plane,)
    for result in results:
        call.set(result, planes)
    return out


@rule(optional=("torchvision::roi_align", "torchvision::roi_pool"))
def regions(call: Call) -> Any:
    """Pooling within boxes: channels stay, images become boxes."""
    source, boxes = call.args[:2]
    for plane in call.planes(boxes):
        call.pin(plane, f"the boxes of {call.where}")
    out = call.run()
    channels: Planes = ()
    for plane in call.planes(source):
        if varying(plane) == {1}:
            channels += (plane,)
        else:
            call.pin(plane, f"channels among positions at {call.where}")
    for result in tree_leaves(out):
        call.set(result, channels)
    return out


CHOSEN = tuple(f"torchvision::{name}" for name in ("nms", "ps_roi_align", "ps_roi_pool"))


@rule(optional=CHOSEN)
def chosen(call: Call) -> Any:
    """Boxes that are chosen by their scores, bins of channels for every position: all stay."""
    out = call.run()
    for tensor in call.tensors():
        for plane in call.planes(tensor):
            call.pin(plane, f"chosen by their places at {call.where}")
    return out


@rule("max_unpool2d", "max_unpool3d")
def unpool(call: Call) -> Any:
    """Values put back where a pooling found them: channels are those of values and of places."""
    values, places = call.args[:2]
    shape = tuple(values.shape)
    operands = [(shape, call.planes(values)), (shape, call.planes(places))]
    planes = call.merge(operands, shape)
    out = call.run()
    found: Planes = ()
    for plane in planes:
        if max(varying(plane)) >= _first_position(call, out.dim()):
            call.pin(plane, f"channels among positions at {call.where}")
        else:
            found += (plane,)
    call.set(out, found)
    return out


def _neighbours(call: Call) -> tuple[int, int] | None:
    """The dimension of channels that are averaged with their neighbours, and those before one.

    As a local response norm does it: the channels lie among the positions, with constants at
    both ends, and there are as many means as channels.
    """
    source, planes = call.args[0], call.planes(call.args[0])
    if call.func.overloadpacket not in AVERAGES or len(planes) != 1 or len(varying(planes[0])) != 1:
        return None
    (dim,) = varying(planes[0])
    axis = dim - _first_position(call, source.dim())
    kernel, stride, padding = (
        [*call.argument(i, name, default)]
        for i, name, default in ((1, "kernel_size", ()), (2, "stride", ()), (3, "padding", (0,)))
    )
    known = (fixed_pads(call, planes[0]).reshape(-1) != FIXED).nonzero().reshape(-1)
    before = int(known[0])
    if (
        axis < 0
        or (stride or kernel)[min(axis, len(stride or kernel) - 1)] != 1
        or any(padding)
        or known.numel() != int(known[-1]) - before + 1
        or known.numel() != source.shape[dim] - kernel[axis] + 1
    ):
        return None
    return dim, before


def _over_neighbours(call: Call, dim: int, before: int) -> Any:
    """Means of neighbours: slimmed, of those that are kept."""
    source = call.args[0]
    (plane,) = call.planes(source)
    part, index = call.selected(source, plane, dim)
    out = call.run(part, *call.args[1:])
    channels = plane.narrow(dim, before, int((fixed_pads(call, plane) != FIXED).sum()))
    if index is not None:
        size = [*out.shape]
        size[dim] = channels.shape[dim]
        _, left = call.selected(channels, channels, dim)
        assert left is not None, "what is not kept is not a constant"
        out = out.new_zeros(size).index_copy(dim, left, out)
    call.set(out, (channels,))
    return out


def _first_position(call: Call, dims: int) -> int:
    name = call.name
    for spatial in (1, 2, 3):
        if f"{spatial}d" in name:
            return dims - spatial
    return 2
