"""Rounding as a quantised network will do it: the values of training that is aware of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes, varying
from lcprune.tracing._rule import rule


@rule(
    optional=(
        "fake_quantize_per_tensor_affine_cachemask",
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
        "_fake_quantize_learnable_per_tensor_affine",
    )
)
def per_tensor(call: Call) -> Any:
    """One step for all values."""
    return _rounded(call, call.run(), call.planes(call.args[0]))


@rule(
    optional=(
        "fake_quantize_per_channel_affine_cachemask",
        "_fake_quantize_learnable_per_channel_affine",
    )
)
def per_channel(call: Call) -> Any:
    """A step for each channel."""
    return _rounded(call, call.run(), _with_steps(call, call.args[1:3], int(call.args[3])))


@rule(optional=("_fused_moving_avg_obs_fq_helper",))
def observed(call: Call) -> Any:
    """Steps that follow the smallest and largest values: slimmed, of those that are kept."""
    planes = call.planes(call.args[0])
    if call.argument(11, "per_row_fake_quant", False):
        planes = _with_steps(call, call.args[3:7], int(call.args[10]))
    return _rounded(call, call.run(_kept_only(call), *call.args[1:]), planes)


def _with_steps(call: Call, steps: tuple[Any, ...], dim: int) -> Planes:
    """The channels of the values and of their steps, which an observer may not have found yet."""
    source = call.args[0]
    operands = [(tuple(source.shape), call.planes(source))]
    for step in steps:
        if call.planes(step):
            operands.append(call.over_channels(step, dim, source.dim()))
    return call.merge(operands, tuple(source.shape))


def _kept_only(call: Call) -> Tensor:
    """The values, those of channels that are not kept replaced by those of one that is."""
    source: Tensor = call.args[0]
    for plane in call.planes(source):
        if len(varying(plane)) > 1:
            call.pin(plane, f"an operation across channels, {call.where}")
            continue
        kept = call.kept(plane)
        if kept is not None:
            (dim,) = varying(plane)
            kept = kept.reshape(-1).to(source.device)
            index = torch.arange(kept.numel(), device=source.device)
            source = source.index_select(dim, torch.where(kept, index, kept.long().argmax()))
    return source


def _rounded(call: Call, out: Any, planes: Planes) -> Any:
    for result in tree_leaves(out):
        call.set(result, planes)
    return out
