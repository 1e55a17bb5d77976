"""Normalisation: per channel, or over channels that are kept."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import along, from_vector, varying, vector
from lcprune.tracing._rule import rule


@rule(
    "native_batch_norm",
    optional=(
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "_batch_norm_with_update",
        "_batch_norm_no_update",
        "cudnn_batch_norm",
        "miopen_batch_norm",
    ),
)
def batch_norm(call: Call) -> Any:
    """Statistics, scale and shift of each channel.

    Statistics that are taken from the values themselves run over all other dimensions; where
    those hold channels (a standardised weight), slimmed ones are of the kept channels.
    """
    source = call.args[0]
    shape = tuple(source.shape)
    operands = [(shape, call.planes(source))]
    for state in (a for a in call.args[1:5] if isinstance(a, Tensor)):
        if state.numel() > 1:
            operands.append(call.over_channels(state, 1, source.dim()))
    planes = call.merge(operands, shape)
    measured, restore = source, []
    for plane in planes if _measures(call) else ():
        others = varying(plane) - {1}
        if len(varying(plane)) > 1 and others:
            call.pin(plane, f"a statistic across channels, {call.where}")
        for dim in others if len(varying(plane)) == 1 else ():
            measured, index = call.selected(measured, plane, dim)
            if index is not None:
                restore.append((dim, index))
    out = call.run(measured, *call.args[1:])
    if restore:
        whole = out[0]
        for dim, index in reversed(restore):
            size = [*whole.shape]
            size[dim] = shape[dim]
            whole = whole.new_zeros(size).index_copy(dim, index, whole)
        out = (whole, *out[1:])
    call.set(out[0], planes)
    channels = along(planes, 1)
    if channels is not None and varying(channels) == {1}:
        call.size_attribute("num_features", _of_one_image(call, channels.reshape(-1)))
        for statistic in out[1:]:
            if statistic.numel() == shape[1]:
                call.set(statistic, from_vector(channels.reshape(-1), 0, 1))
    return out


def _of_one_image(call: Call, labels: Tensor) -> Tensor:
    """The channels of a module, of which an instance norm has as many copies as there are images.

    It is a batch norm of one image, whose channels are those of all images.
    """
    size = getattr(call.module, "num_features", None)
    if not isinstance(size, int) or size < 1 or labels.numel() % size:
        return labels
    images = labels.reshape(-1, size)
    call.join(images, images[:1], f"the images of {call.where}")
    return images[0]


def _measures(call: Call) -> bool:
    names = [argument.name for argument in call.func._schema.arguments]
    if "training" in names:
        return bool(call.argument(names.index("training"), "training"))
    return False


@rule("native_layer_norm")
def layer_norm(call: Call) -> Any:
    """Statistics over the last dimensions; slimmed, over the channels that are kept."""
    source, normalized = call.args[0], list(call.args[1])
    shape = tuple(source.shape)
    operands = [(shape, call.planes(source))]
    for state in (a for a in call.args[2:4] if isinstance(a, Tensor)):
        operands.append((tuple(state.shape), call.planes(state)))
    planes = call.merge(operands, shape)
    over = range(source.dim() - len(normalized), source.dim())
    last = source.dim() - 1
    for plane in planes:
        if varying(plane) & set(over) and (len(normalized) > 1 or varying(plane) != {last}):
            call.pin(plane, f"normalised over several dimensions at {call.where}")
    channels = along(planes, last)
    part, index = (source, None) if channels is None else call.selected(source, channels, last)
    if index is None:
        out = call.run()
    else:
        states = [a if a is None else a.index_select(0, index) for a in call.args[2:4]]
        small = call.run(part, [index.numel()], *states, call.args[4])
        out = (torch.zeros_like(source).index_copy(last, index, small[0]), *small[1:])
    call.set(out[0], planes)
    for statistic in out[1:]:
        call.set(statistic, tuple(plane for plane in planes if not varying(plane) & set(over)))
    if channels is not None and len(normalized) == 1:
        call.size_attribute("normalized_shape", channels.reshape(-1), 0)
    return out


@rule("native_group_norm")
def group_norm(call: Call) -> Any:
    """Statistics over groups of channels.

    Either whole groups go and the module's ``num_groups`` follows, or every group loses the same
    places; whichever leaves more to choose.
    """
    source, weight, bias, batch, _, positions, groups, eps = call.args
    shape = tuple(source.shape)
    whole = isinstance(call.module, nn.GroupNorm) and groups >= shape[1] // groups
    plane = along(call.planes(source), 1)
    if plane is not None:
        plane = call.tie(plane, 1, f"channels at {call.where}")
        blocks = plane.reshape(groups, -1)
        first = blocks[:, :1] if whole else blocks[:1]
        call.join(blocks, first, f"the groups of {call.where}")
        if whole:
            call.size_attribute("num_groups", first.reshape(-1))
    operands = [(shape, call.planes(source))]
    for state in (weight, bias):
        if isinstance(state, Tensor):
            operands.append(call.over_channels(state, 1, source.dim()))
    planes = call.merge(operands, shape)
    channels = along(planes, 1)
    part, index = (source, None) if channels is None else call.selected(source, channels, 1)
    if index is None:
        out = call.run()
    else:
        states = [s if s is None else s.index_select(0, index) for s in (weight, bias)]
        count = index.numel()
        left = count * groups // shape[1] if whole else groups
        small = call.run(part.contiguous(), *states, batch, count, positions, left, eps)
        out = (torch.zeros_like(source).index_copy(1, index, small[0]), *small[1:])
    call.set(out[0], planes)
    if plane is not None and whole and index is None:
        for statistic in out[1:]:
            call.set(statistic, from_vector(first.reshape(-1), 1, 2))
    if channels is not None and isinstance(call.module, nn.GroupNorm):
        call.size_attribute("num_channels", vector(channels, 1, prod(channels.shape)))
    return out
