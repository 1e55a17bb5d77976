"""Contractions: one set of labels ends, another begins."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.graph import FIXED
from lcprune.tracing._call import Call
from lcprune.tracing._planes import Planes, along, from_vector, varying, vector
from lcprune.tracing._pointwise import merge, over_channels
from lcprune.tracing._sizes import AttributeValue, Kept

aten = torch.ops.aten


def _single(call: Call, planes: Planes, dim: int) -> Tensor | None:
    """The plane along ``dim``, tied over whatever else it varies over."""
    plane = along(planes, dim)
    return None if plane is None else call.flow.tie(plane, dim, f"channels at {call.where}")


def convolution(call: Call) -> Any:
    """Input channels end, filters begin; plain, grouped and transposed."""
    source, weight, bias = call.args[:3]
    transposed, groups = bool(call.args[6]), int(call.args[8])
    flow = call.flow
    channel_dim = source.dim() - weight.dim() + 1
    plane = _single(call, flow.planes(source), channel_dim)
    for other in flow.planes(source):
        if along((other,), channel_dim) is None:
            flow.labels.pin(other, f"labels that are not channels at {call.where}")
    inputs = vector(plane, channel_dim, source.shape[channel_dim])
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    filters = vector(_single(call, flow.planes(weight), out_dim), out_dim, weight.shape[out_dim])
    reads = vector(_single(call, flow.planes(weight), in_dim), in_dim, weight.shape[in_dim])

    out = call.run(flow.masked(source, channel_dim), *call.args[1:])

    flow.labels.produce(filters)
    reason = f"the channels of {call.where} have a fixed size"
    if groups == 1:
        flow.labels.join(inputs, reads, reason)
        outputs = filters
        counts = [filters, reads]
    elif transposed:
        outputs, counts = _grouped(call, inputs, filters, reads, groups, transposed=True)
    else:
        outputs, counts = _grouped(call, inputs, filters, reads, groups, transposed=False)
    planes = from_vector(outputs, channel_dim, out.dim())
    if bias is not None:
        planes = merge(
            flow,
            [(tuple(out.shape), planes), over_channels(flow, bias, channel_dim, out.dim())],
            tuple(out.shape),
            reason,
        )
    flow.set(out, planes)
    positions = prod((source if transposed else out).shape[channel_dim + 1 :])
    batch = prod(out.shape[:channel_dim])
    kernel = prod(weight.shape[2:])
    flow.count(batch * positions * kernel, *counts)
    flow.size_attribute("in_channels", inputs)
    flow.size_attribute("out_channels", outputs)
    return out


def _grouped(
    call: Call, inputs: Tensor, filters: Tensor, reads: Tensor, groups: int, *, transposed: bool
) -> tuple[Tensor, list[Tensor]]:
    """Output channels and counted vectors of a grouped convolution.

    Either whole groups go (a depthwise convolution is the extreme case) and the module's
    ``groups`` follows, or every group loses the same places; whichever leaves more to choose.
    """
    flow = call.flow
    inside = inputs.view(groups, -1)
    outside = filters.view(groups, -1) if not transposed else None
    reason = f"the groups of {call.where}"
    if _open_groups(call, groups) and groups >= inside.shape[1]:
        whole = inside[:, :1]
        flow.labels.join(inside, whole, reason)
        if not flow.size_attribute("groups", whole.reshape(-1)):
            flow.require(whole.reshape(-1), flow.asked.expression(groups), call.where)
        if outside is not None:
            flow.labels.join(outside, whole, reason)
            constant = reads.new_full((reads.numel(),), FIXED)
            return filters, [filters, constant]
        # Transposed: the weight is (in, out / groups, …); whole groups leave by its first
        # dimension alone, and every output channel of a group follows its input channels.
        flow.labels.join(inputs, reads, reason)
        flow.labels.produce(reads)
        flow.labels.pin(filters, f"the filters of every group at {call.where}, which go as a whole")
        outputs = whole.expand(groups, filters.numel()).reshape(-1)
        constant = filters.new_full((filters.numel(),), FIXED)
        return outputs, [reads, constant]
    if inside.shape[1] == 1:
        flow.labels.pin(torch.cat([inputs, filters]), f"groups fixed in code at {call.where}")
    first = inside[:1]
    flow.labels.join(inside, first, reason)
    if outside is not None:
        flow.labels.join(outside, outside[:1], reason)
        flow.labels.join(first.reshape(-1), reads, reason)
        return filters, [filters, reads]
    flow.labels.join(inputs, reads, reason)
    return filters.repeat(groups), [reads, filters]


def _open_groups(call: Call, groups: int) -> bool:
    """Whether the number of groups can follow: a convolution's own, a shape's, an attribute."""
    if isinstance(call.flow.module, nn.modules.conv._ConvNd):
        return True
    asked = call.flow.asked.expression(groups)
    if isinstance(asked, AttributeValue):
        return asked.index is None  # strides and paddings are tuples
    return isinstance(asked, Kept)


def matrix_product(call: Call) -> Any:
    """(n, k) @ (k, m): the labels of k end, those of n and m go on."""
    added = call.func.overloadpacket is aten.addmm
    left, right = call.args[1:3] if added else call.args[:2]
    flow = call.flow
    reason = f"the features of {call.where} have a fixed size"
    ends_left = _single(call, flow.planes(left), 1)
    ends_right = _single(call, flow.planes(right), 0)
    size = left.shape[1]
    features = vector(ends_left, 1, size)
    reads = vector(ends_right, 0, size)
    flow.labels.join(features, reads, reason)

    masked = (flow.masked(left, 1), flow.masked(right, 0))
    out = call.run(call.args[0], *masked) if added else call.run(*masked)

    planes: list[Tensor] = []
    counts = [torch.maximum(features, reads)]
    for operand, dim in ((left, 0), (right, 1)):
        plane = along(tuple(p for p in flow.planes(operand) if varying(p) == {dim}), dim)
        if plane is not None:
            planes.append(plane)
            if flow.data.is_constant(operand):
                flow.labels.produce(plane)
        counts.append(vector(plane, dim, operand.shape[dim]))
    result: Planes = tuple(planes)
    if added:
        bias = call.args[0]
        result = merge(
            flow,
            [(tuple(out.shape), result), (tuple(bias.shape), flow.planes(bias))],
            tuple(out.shape),
            reason,
        )
    flow.set(out, result)
    flow.count(1, *counts)
    if isinstance(flow.module, nn.Linear):
        flow.size_attribute("in_features", features)
        flow.size_attribute("out_features", counts[2])
    return out


def batched_matrix_product(call: Call) -> Any:
    """(b, n, k) @ (b, k, m): the labels of k end; those of b meet, those of n and m go on."""
    left, right = call.args[-2:]
    flow = call.flow
    reason = f"a fixed size at {call.where}"
    features = vector(_alone(call, left, 2), 2, left.shape[2])
    reads = vector(_alone(call, right, 1), 1, right.shape[1])
    flow.labels.join(features, reads, reason)

    masked = (flow.masked(left, 2), flow.masked(right, 1))
    out = call.run(*call.args[:-2], *masked)

    rows, columns = _alone(call, left, 1), _alone(call, right, 2)
    sides = (
        ((left.shape[0], left.shape[1], 1), _present(_alone(call, left, 0), rows)),
        ((right.shape[0], 1, right.shape[2]), _present(_alone(call, right, 0), columns)),
    )
    operands: list[tuple[tuple[int, ...], Planes]] = list(sides)
    if len(call.args) == 3:
        operands.append((tuple(call.args[0].shape), flow.planes(call.args[0])))
    planes = merge(flow, operands, tuple(out.shape), reason)
    for operand, plane in ((left, rows), (right, columns)):
        if plane is not None and flow.data.is_constant(operand):
            flow.labels.produce(plane)
    flow.set(out, planes)
    flow.count(
        1,
        vector(along(planes, 0), 0, out.shape[0]),
        vector(along(planes, 1), 1, out.shape[1]),
        vector(along(planes, 2), 2, out.shape[2]),
        torch.maximum(features, reads),
    )
    return out


def _alone(call: Call, tensor: Tensor, dim: int) -> Tensor | None:
    """The plane that varies along ``dim``; one that varies over more stays."""
    plane = along(call.flow.planes(tensor), dim)
    if plane is not None and varying(plane) != {dim}:
        call.flow.labels.pin(plane, f"labels over several dimensions at {call.where}")
        return None
    return plane


def _present(*planes: Tensor | None) -> Planes:
    return tuple(plane for plane in planes if plane is not None)


def embedding(call: Call) -> Any:
    """Rows looked up in a table: its columns are the channels."""
    weight, indices = call.args[:2]
    out = call.run()
    flow = call.flow
    columns = along(flow.planes(weight), 1)
    if columns is not None:
        flow.labels.produce(columns)
        flow.set(out, from_vector(columns.reshape(-1), indices.dim(), out.dim()))
        flow.size_attribute("embedding_dim", columns.reshape(-1))
    return out
