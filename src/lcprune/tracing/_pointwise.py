"""Element by element: labels that meet are one channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcprune.tracing._call import Call
from lcprune.tracing._flow import LabelFlow
from lcprune.tracing._planes import Planes, align, varying

aten = torch.ops.aten

UNTAGGED = frozenset(
    {
        aten.hardswish,
        aten.hardswish_,
        aten.prelu,
        aten._prelu_kernel,
        aten.dropout,
        aten.dropout_,
        aten.native_dropout,
        aten.feature_dropout,
        aten.alpha_dropout,
        aten.masked_fill,
        aten.masked_fill_,
        aten.where,
        aten.bernoulli,
        aten.bernoulli_,
        aten.uniform_,
        aten.normal_,
        aten.rrelu_with_noise,
        aten.log_sigmoid_forward,
        aten.zeros_like,
        aten.ones_like,
        aten.empty_like,
        aten.full_like,
        aten.rand_like,
        aten.randn_like,
        aten.fill_,
        aten.zero_,
        aten.copy_,
    }
)
"""Pointwise operations that PyTorch does not tag as such."""


def is_pointwise(func: Any) -> bool:
    """Whether every output element depends on the input elements at its own place only."""
    return torch.Tag.pointwise in func.tags or func.overloadpacket in UNTAGGED


def pointwise(call: Call) -> Any:
    """Join the labels of all operands where they meet after broadcasting."""
    operands = [(tuple(t.shape), call.flow.planes(t)) for t in call.tensors() if t.dim()]
    if call.func.overloadpacket is aten._prelu_kernel or call.func.overloadpacket is aten.prelu:
        operands = _prelu_operands(call)
    for number in call.args[1:]:
        if isinstance(number, int | float):
            call.flow.use_value(number)
    out = call.run()
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.dim()]
    if not results:
        return out
    planes = merge(call.flow, operands, tuple(results[0].shape), f"a fixed size at {call.where}")
    if all(call.flow.data.is_constant(tensor) for tensor in call.tensors()):
        _same_filters(call.flow, [planes for _, planes in operands])
    for result in results:
        if result.shape == results[0].shape:
            if any(result is t for t in call.tensors()):
                call.flow.write(result, planes)
            else:
                call.flow.set(result, planes)
    return out


def _prelu_operands(call: Call) -> list[tuple[tuple[int, ...], Planes]]:
    value, weight = call.args[:2]
    operands = [(tuple(value.shape), call.flow.planes(value))]
    if weight.dim() == 1 and weight.numel() > 1:
        operands.append(over_channels(call.flow, weight, 1, value.dim()))
        call.flow.size_attribute("num_parameters", call.flow.planes(weight)[0].reshape(-1))
    elif weight.numel() > 1:
        operands.append((tuple(weight.shape), call.flow.planes(weight)))
    return operands


def _same_filters(flow: LabelFlow, operands: list[Planes]) -> None:
    """Weights that are computed of several weights have the filters of all of them."""
    first, *others = [p for p in operands if p] or [()]
    for plane in first:
        for planes in others:
            for other in planes:
                if other.shape == plane.shape:
                    flow.labels.same_filters(plane, other)


def over_channels(
    flow: LabelFlow, weight: Tensor, dim: int, dims: int
) -> tuple[tuple[int, ...], Planes]:
    """A 1-D ``weight`` as the operand that it is for a tensor of ``dims`` dimensions."""
    shape = [1] * dims
    shape[dim] = weight.numel()
    return tuple(shape), tuple(plane.reshape(shape) for plane in flow.planes(weight))


def merge(
    flow: LabelFlow,
    operands: list[tuple[tuple[int, ...], Planes]],
    shape: tuple[int, ...],
    reason: str,
) -> Planes:
    """Join planes that vary over common dimensions, and return those of the result.

    An operand of size 1 along a dimension broadcasts there: it gates and is not coupled. One of
    full size without labels has a size that nothing can change, so what meets it must stay.
    """
    dims = len(shape)
    aligned: list[tuple[tuple[int, ...], Planes]] = [
        ((1,) * (dims - len(size)) + size, tuple(align(p, dims) for p in planes))
        for size, planes in operands
    ]
    merged: list[Tensor] = []
    for _, planes in aligned:
        for new in planes:
            plane = new
            apart = []
            for other in merged:
                if varying(other) & varying(plane):
                    flow.labels.join(other, plane, reason)
                    # Real labels come before those of padding, so the real one stays.
                    plane = torch.minimum(other, plane)
                else:
                    apart.append(other)
            merged = [*apart, plane]
    for plane in merged:
        for size, planes in aligned:
            unlabelled = varying(plane) - frozenset().union(*(varying(p) for p in planes))
            if any(size[d] > 1 for d in unlabelled):
                flow.labels.pin(plane, reason)
    return tuple(merged)
