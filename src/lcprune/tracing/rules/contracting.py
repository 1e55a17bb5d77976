"""Contractions: one set of labels ends, another begins."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.graph import FIXED
from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes, along, from_vector, varying, vector
from lcprune.tracing._rule import rule
from lcprune.tracing._sizes import AttributeValue, Kept, leaves

aten = torch.ops.aten


def _single(call: Call, planes: Planes, dim: int) -> Tensor | None:
    """The plane along ``dim``, tied over whatever else it varies over."""
    plane = along(planes, dim)
    return None if plane is None else call.tie(plane, dim, f"channels at {call.where}")


@rule("convolution", "_convolution", optional=("convolution_overrideable",))
def convolution(call: Call) -> Any:
    """Input channels end, filters begin; plain, grouped and transposed."""
    source, weight, bias = call.args[:3]
    transposed, groups = bool(call.args[6]), int(call.args[8])
    channel_dim = source.dim() - weight.dim() + 1
    plane = _single(call, call.planes(source), channel_dim)
    images: Planes = ()
    for other in call.planes(source):
        if channel_dim == 1 and varying(other) == {0}:
            images = (other,)  # blocks of channels, as if they were images
        elif along((other,), channel_dim) is None:
            call.pin(other, f"labels that are not channels at {call.where}")
    inputs = vector(plane, channel_dim, source.shape[channel_dim])
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    filters = vector(_single(call, call.planes(weight), out_dim), out_dim, weight.shape[out_dim])
    reads = vector(_single(call, call.planes(weight), in_dim), in_dim, weight.shape[in_dim])

    out = call.run(call.masked(source, channel_dim), *call.args[1:])

    outputs, counts = _read(call, inputs, filters, reads, groups, transposed=transposed)
    reason = f"the channels of {call.where} have a fixed size"
    planes = from_vector(outputs, channel_dim, out.dim())
    if bias is not None:
        planes = call.merge(
            [(tuple(out.shape), planes), call.over_channels(bias, channel_dim, out.dim())],
            tuple(out.shape),
            reason,
        )
    call.set(out, (*planes, *images))
    positions = prod((source if transposed else out).shape[channel_dim + 1 :])
    kernel = prod(weight.shape[2:])
    if images:
        call.count(positions * kernel, images[0].reshape(-1), *counts)
    else:
        call.count(prod(out.shape[:channel_dim]) * positions * kernel, *counts)
    call.size_attribute("in_channels", inputs)
    call.size_attribute("out_channels", outputs)
    return out


def _read(
    call: Call, inputs: Tensor, filters: Tensor, reads: Tensor, groups: int, *, transposed: bool
) -> tuple[Tensor, list[Tensor]]:
    """Let filters read their inputs: the output channels, and the vectors that are counted."""
    call.produce(filters)
    if groups > 1:
        return _grouped(call, inputs, filters, reads, groups, transposed=transposed)
    call.join(inputs, reads, f"the channels of {call.where} have a fixed size")
    return filters, [filters, reads]


def _grouped(
    call: Call, inputs: Tensor, filters: Tensor, reads: Tensor, groups: int, *, transposed: bool
) -> tuple[Tensor, list[Tensor]]:
    """Output channels and counted vectors of a grouped convolution.

    Either whole groups go (a depthwise convolution is the extreme case) and the module's
    ``groups`` follows, or every group loses the same places; whichever leaves more to choose.
    """
    inside = inputs.view(groups, -1)
    outside = filters.view(groups, -1) if not transposed else None
    reason = f"the groups of {call.where}"
    if _open_groups(call, groups) and groups >= inside.shape[1]:
        whole = inside[:, :1]
        call.join(inside, whole, reason)
        if not call.size_attribute("groups", whole.reshape(-1)):
            call.require(whole.reshape(-1), call.asked.expression(groups))
        if outside is not None:
            call.join(outside, whole, reason)
            constant = reads.new_full((reads.numel(),), FIXED)
            return filters, [filters, constant]
        # Transposed: the weight is (in, out / groups, …); whole groups leave by its first
        # dimension alone, and every output channel of a group follows its input channels.
        call.join(inputs, reads, reason)
        call.produce(reads)
        call.pin(filters, f"the filters of every group at {call.where}, which go as a whole")
        outputs = whole.expand(groups, filters.numel()).reshape(-1)
        constant = filters.new_full((filters.numel(),), FIXED)
        return outputs, [reads, constant]
    if inside.shape[1] == 1:
        call.pin(torch.cat([inputs, filters]), f"groups fixed in code at {call.where}")
    first = inside[:1]
    call.join(inside, first, reason)
    if outside is not None:
        call.join(outside, outside[:1], reason)
        call.join(first.reshape(-1), reads, reason)
        return filters, [filters, reads]
    call.join(inputs, reads, reason)
    return filters.repeat(groups), [reads, filters]


def _open_groups(call: Call, groups: int) -> bool:
    """Whether the number of groups can follow: a convolution's own, a shape's, an attribute."""
    if isinstance(call.module, nn.modules.conv._ConvNd):
        return True
    if call.name == DEFORMABLE:  # torchvision divides the channels by those that a filter reads
        return True
    asked = call.asked.expression(groups)
    if isinstance(asked, AttributeValue):
        return asked.index is None  # strides and paddings are tuples
    return not isinstance(asked, int) and all(isinstance(leaf, Kept) for leaf in leaves(asked))


DEFORMABLE = "torchvision.deform_conv2d"


@rule(optional=("torchvision::deform_conv2d",))
def deformable_convolution(call: Call) -> Any:
    """A convolution that reads each position at places of its own: offsets and masks stay.

    Every group of offsets moves as many channels, so all groups lose the same places.
    """
    source, weight, offsets, mask, bias = call.args[:5]
    groups, offset_groups = int(call.args[11]), int(call.args[12])
    for moved in (*call.planes(offsets), *call.planes(mask)):
        call.pin(moved, f"the offsets of {call.where}")
    plane = _single(call, call.planes(source), 1)
    for other in call.planes(source):
        if along((other,), 1) is None:
            call.pin(other, f"labels that are not channels at {call.where}")
    inputs = vector(plane, 1, source.shape[1])
    filters = vector(_single(call, call.planes(weight), 0), 0, weight.shape[0])
    reads = vector(_single(call, call.planes(weight), 1), 1, weight.shape[1])
    out = call.run(call.masked(source, 1), *call.args[1:])

    outputs, counts = _read(call, inputs, filters, reads, groups, transposed=False)
    if offset_groups > 1:
        blocks = inputs.reshape(offset_groups, -1)
        call.join(blocks, blocks[:1], f"the groups of offsets of {call.where}")
    planes = call.merge(
        [(tuple(out.shape), from_vector(outputs, 1, 4)), call.over_channels(bias, 1, 4)],
        tuple(out.shape),
    )
    call.set(out, planes)
    call.count(out.shape[0] * prod(out.shape[2:]) * prod(weight.shape[2:]), *counts)
    call.size_attribute("in_channels", inputs)
    call.size_attribute("out_channels", outputs)
    return out


@rule("mm", "addmm")
def matrix_product(call: Call) -> Any:
    """(n, k) @ (k, m): the labels of k end, those of n and m go on."""
    added = call.func.overloadpacket is aten.addmm
    left, right = call.args[1:3] if added else call.args[:2]
    reason = f"the features of {call.where} have a fixed size"
    ends_left = _single(call, call.planes(left), 1)
    ends_right = _single(call, call.planes(right), 0)
    size = left.shape[1]
    features = vector(ends_left, 1, size)
    reads = vector(ends_right, 0, size)
    call.join(features, reads, reason)

    masked = (call.masked(left, 1), call.masked(right, 0))
    out = call.run(call.args[0], *masked) if added else call.run(*masked)

    planes: list[Tensor] = []
    counts = [torch.maximum(features, reads)]
    for operand, dim in ((left, 0), (right, 1)):
        plane = along(tuple(p for p in call.planes(operand) if varying(p) == {dim}), dim)
        if plane is not None:
            planes.append(plane)
            if call.is_constant(operand):
                call.produce(plane)
        counts.append(vector(plane, dim, operand.shape[dim]))
    result: Planes = tuple(planes)
    if added:
        bias = call.args[0]
        result = call.merge(
            [(tuple(out.shape), result), (tuple(bias.shape), call.planes(bias))],
            tuple(out.shape),
            reason,
        )
    call.set(out, result)
    call.count(1, *counts)
    if isinstance(call.module, nn.Linear):
        call.size_attribute("in_features", features)
        call.size_attribute("out_features", counts[2])
    return out


@rule("bmm", "baddbmm")
def batched_matrix_product(call: Call) -> Any:
    """(b, n, k) @ (b, k, m): the labels of k end; those of b meet, those of n and m go on."""
    for number in call.kwargs.values():
        call.flow.notes.use_value(number)
    left, right = call.args[-2:]
    reason = f"a fixed size at {call.where}"
    features = vector(_alone(call, left, 2), 2, left.shape[2])
    reads = vector(_alone(call, right, 1), 1, right.shape[1])
    call.join(features, reads, reason)

    masked = (call.masked(left, 2), call.masked(right, 1))
    out = call.run(*call.args[:-2], *masked)

    rows, columns = _alone(call, left, 1), _alone(call, right, 2)
    sides = (
        ((left.shape[0], left.shape[1], 1), _present(_alone(call, left, 0), rows)),
        ((right.shape[0], 1, right.shape[2]), _present(_alone(call, right, 0), columns)),
    )
    operands: list[tuple[tuple[int, ...], Planes]] = list(sides)
    if len(call.args) == 3:
        operands.append((tuple(call.args[0].shape), call.planes(call.args[0])))
    planes = call.merge(operands, tuple(out.shape), reason)
    for operand, plane in ((left, rows), (right, columns)):
        if plane is not None and call.is_constant(operand):
            call.produce(plane)
    call.set(out, planes)
    call.count(
        1,
        vector(along(planes, 0), 0, out.shape[0]),
        vector(along(planes, 1), 1, out.shape[1]),
        vector(along(planes, 2), 2, out.shape[2]),
        torch.maximum(features, reads),
    )
    return out


def _alone(call: Call, tensor: Tensor, dim: int) -> Tensor | None:
    """The plane that varies along ``dim``; one that varies over more stays."""
    plane = along(call.planes(tensor), dim)
    if plane is not None and varying(plane) != {dim}:
        call.pin(plane, f"labels over several dimensions at {call.where}")
        return None
    return plane


def _present(*planes: Tensor | None) -> Planes:
    return tuple(plane for plane in planes if plane is not None)


@rule("embedding")
def embedding(call: Call) -> Any:
    """Rows looked up in a table: its columns are the channels."""
    weight, indices = call.args[:2]
    out = call.run()
    columns = along(call.planes(weight), 1)
    if columns is not None:
        call.produce(columns)
        call.set(out, from_vector(columns.reshape(-1), indices.dim(), out.dim()))
        call.size_attribute("embedding_dim", columns.reshape(-1))
    return out


@rule(
    "_scaled_dot_product_attention_math", optional=("_scaled_dot_product_flash_attention_for_cpu",)
)
def attention(call: Call) -> Any:
    """Softmax of queries times keys, times values."""
    query, key, value = call.args[:3]
    options = {
        name: call.argument(position, name, default)
        for position, name, default in _options(call.func.overloadpacket)
    }
    with call.flow:
        return aten._scaled_dot_product_attention_math.default.decompose(
            query,
            key,
            value,
            options["attn_mask"],
            options["dropout_p"],
            options["is_causal"],
            **{name: call.kwargs[name] for name in ("scale", "enable_gqa") if name in call.kwargs},
        )


def _options(packet: Any) -> tuple[tuple[int, str, Any], ...]:
    """Position, name and default of what follows query, key and value."""
    if packet is aten._scaled_dot_product_attention_math:
        return ((3, "attn_mask", None), (4, "dropout_p", 0.0), (5, "is_causal", False))
    return ((99, "attn_mask", None), (3, "dropout_p", 0.0), (4, "is_causal", False))


FEATURES = {2: "in1_features", 3: "in2_features", 1: "out_features"}
"""What a bilinear layer keeps of the dimensions of its product."""


@rule("_trilinear")
def trilinear(call: Call) -> Any:
    """Three operands of different new dimensions, multiplied and summed over ``sumdim``."""
    operands = list(call.args[:3])
    constant = [call.is_constant(operand) for operand in operands]
    summed = call.argument(6, "sumdim")
    with call.flow:
        for position, new in enumerate(call.args[3:6]):
            for dim in new:
                operands[position] = operands[position].unsqueeze(dim)
        product = operands[0] * operands[1] * operands[2]
        out: Tensor = product.sum(summed) if summed else product
    for operand, fixed in zip(operands, constant, strict=True):
        for filters in call.planes(operand) if fixed else ():
            if not varying(filters) & set(summed):
                call.produce(filters)
    if isinstance(call.module, nn.Bilinear):
        for dim, name in FEATURES.items():
            plane = along(call.planes(product), dim)
            if plane is not None:
                call.size_attribute(name, plane.reshape(-1))
    return out


@rule("_cdist_forward", "_euclidean_dist")
def distances(call: Call) -> Any:
    """Distances between the rows of two matrices: features that are 0 in both add nothing."""
    left, right = call.args[:2]
    reason = f"the features of {call.where} have a fixed size"
    vectors = []
    for operand in (left, right):
        features = None
        for plane in call.planes(operand):
            if varying(plane) == {operand.dim() - 1}:
                features = plane
            else:
                call.pin(plane, f"rows at {call.where}")
        vectors.append(vector(features, operand.dim() - 1, operand.shape[-1]))
    call.join(vectors[0], vectors[1], reason)
    masked = [call.masked(operand, operand.dim() - 1) for operand in (left, right)]
    out = call.run(*masked, *call.args[2:])
    call.set(out, ())
    return out
