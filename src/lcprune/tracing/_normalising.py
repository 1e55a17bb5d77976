"""Normalisation: per channel, or over channels that are kept."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.tracing._call import Call
from lcprune.tracing._planes import along, varying, vector
from lcprune.tracing._pointwise import merge, over_channels


def batch_norm(call: Call) -> Any:
    """Statistics, scale and shift of each channel.

    Statistics that are taken from the values themselves run over all other dimensions; where
    those hold channels (a standardised weight), slimmed ones are of the kept channels.
    """
    source = call.args[0]
    flow = call.flow
    shape = tuple(source.shape)
    operands = [(shape, flow.planes(source))]
    for state in (a for a in call.args[1:5] if isinstance(a, Tensor)):
        if state.numel() > 1:
            operands.append(over_channels(flow, state, 1, source.dim()))
    planes = merge(flow, operands, shape, f"a fixed size at {call.where}")
    measured, restore = source, []
    for plane in planes if _measures(call) else ():
        others = varying(plane) - {1}
        if len(varying(plane)) > 1 and others:
            flow.labels.pin(plane, f"a statistic across channels, {call.where}")
        for dim in others if len(varying(plane)) == 1 else ():
            measured, index = flow.selected(measured, plane, dim)
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
    flow.set(out[0], planes)
    channels = along(planes, 1)
    if channels is not None and varying(channels) == {1}:
        flow.size_attribute("num_features", channels.reshape(-1))
    return out


def _measures(call: Call) -> bool:
    names = [argument.name for argument in call.func._schema.arguments]
    if "training" in names:
        return bool(call.argument(names.index("training"), "training"))
    return False


def layer_norm(call: Call) -> Any:
    """Statistics over the last dimensions; slimmed, over the channels that are kept."""
    source, normalized = call.args[0], list(call.args[1])
    flow = call.flow
    shape = tuple(source.shape)
    operands = [(shape, flow.planes(source))]
    for state in (a for a in call.args[2:4] if isinstance(a, Tensor)):
        operands.append((tuple(state.shape), flow.planes(state)))
    planes = merge(flow, operands, shape, f"a fixed size at {call.where}")
    over = range(source.dim() - len(normalized), source.dim())
    last = source.dim() - 1
    for plane in planes:
        if varying(plane) & set(over) and (len(normalized) > 1 or varying(plane) != {last}):
            flow.labels.pin(plane, f"normalised over several dimensions at {call.where}")
    channels = along(planes, last)
    part, index = (source, None) if channels is None else flow.selected(source, channels, last)
    if index is None:
        out = call.run()
    else:
        states = [a if a is None else a.index_select(0, index) for a in call.args[2:4]]
        small = call.run(part, [index.numel()], *states, call.args[4])
        out = (torch.zeros_like(source).index_copy(last, index, small[0]), *small[1:])
    flow.set(out[0], planes)
    if channels is not None and len(normalized) == 1:
        flow.size_attribute("normalized_shape", channels.reshape(-1), 0)
    return out


def group_norm(call: Call) -> Any:
    """Statistics over groups of channels.

    Either whole groups go and the module's ``num_groups`` follows, or every group loses the same
    places; whichever leaves more to choose.
    """
    source, weight, bias, batch, _, positions, groups, eps = call.args
    flow = call.flow
    shape = tuple(source.shape)
    whole = isinstance(flow.module, nn.GroupNorm) and groups >= shape[1] // groups
    plane = along(flow.planes(source), 1)
    if plane is not None:
        plane = flow.tie(plane, 1, f"channels at {call.where}")
        blocks = plane.reshape(groups, -1)
        first = blocks[:, :1] if whole else blocks[:1]
        flow.labels.join(blocks, first, f"the groups of {call.where}")
        if whole:
            flow.size_attribute("num_groups", first.reshape(-1))
    operands = [(shape, flow.planes(source))]
    for state in (weight, bias):
        if isinstance(state, Tensor):
            operands.append(over_channels(flow, state, 1, source.dim()))
    planes = merge(flow, operands, shape, f"a fixed size at {call.where}")
    channels = along(planes, 1)
    part, index = (source, None) if channels is None else flow.selected(source, channels, 1)
    if index is None:
        out = call.run()
    else:
        states = [s if s is None else s.index_select(0, index) for s in (weight, bias)]
        count = index.numel()
        left = count * groups // shape[1] if whole else groups
        small = call.run(part.contiguous(), *states, batch, count, positions, left, eps)
        out = (torch.zeros_like(source).index_copy(1, index, small[0]), *small[1:])
    flow.set(out[0], planes)
    if channels is not None and isinstance(flow.module, nn.GroupNorm):
        flow.size_attribute("num_channels", vector(channels, 1, prod(channels.shape)))
    return out
