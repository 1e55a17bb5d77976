"""Normalisation: per channel, or over channels that are kept."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import along, varying, vector
from lcprune.tracing._pointwise import merge, over_channels


def batch_norm(call: Call) -> Any:
    """Statistics, scale and shift of each channel."""
    source = call.args[0]
    flow = call.flow
    shape = tuple(source.shape)
    operands = [(shape, flow.planes(source))]
    for state in (a for a in call.args[1:5] if isinstance(a, Tensor)):
        if state.numel() > 1:
            operands.append(over_channels(flow, state, 1, source.dim()))
    planes = merge(flow, operands, shape, f"a fixed size at {call.where}")
    out = call.run()
    flow.set(out[0], planes)
    channels = along(planes, 1)
    if channels is not None and varying(channels) == {1}:
        flow.size_attribute("num_features", channels.reshape(-1))
    return out


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
    kept = None if channels is None else flow.kept(channels)
    if kept is None:
        out = call.run()
    else:
        index = kept.reshape(-1).nonzero().reshape(-1).to(source.device)
        states = [a if a is None else a.index_select(0, index) for a in call.args[2:4]]
        small = call.run(source.index_select(last, index), [index.numel()], *states, call.args[4])
        out = (torch.zeros_like(source).index_copy(last, index, small[0]), *small[1:])
    flow.set(out[0], planes)
    if channels is not None and len(normalized) == 1:
        flow.size_attribute("normalized_shape", channels.reshape(-1), 0)
    return out


def group_norm(call: Call) -> Any:
    """Statistics over groups of channels; every group loses the same places."""
    source, weight, bias, batch, _, positions, groups, eps = call.args
    flow = call.flow
    shape = tuple(source.shape)
    plane = along(flow.planes(source), 1)
    if plane is not None:
        plane = flow.tie(plane, 1, f"channels at {call.where}")
        blocks = plane.reshape(groups, -1)
        flow.labels.join(blocks, blocks[:1], f"the groups of {call.where}")
    operands = [(shape, flow.planes(source))]
    for state in (weight, bias):
        if isinstance(state, Tensor):
            operands.append(over_channels(flow, state, 1, source.dim()))
    planes = merge(flow, operands, shape, f"a fixed size at {call.where}")
    channels = along(planes, 1)
    kept = None if channels is None else flow.kept(channels)
    if kept is None:
        out = call.run()
    else:
        index = kept.reshape(-1).nonzero().reshape(-1).to(source.device)
        states = [s if s is None else s.index_select(0, index) for s in (weight, bias)]
        part = source.index_select(1, index).contiguous()
        small = call.run(part, *states, batch, index.numel(), positions, groups, eps)
        out = (torch.zeros_like(source).index_copy(1, index, small[0]), *small[1:])
    flow.set(out[0], planes)
    if channels is not None and isinstance(flow.module, nn.GroupNorm):
        flow.size_attribute("num_channels", vector(channels, 1, prod(channels.shape)))
    return out
