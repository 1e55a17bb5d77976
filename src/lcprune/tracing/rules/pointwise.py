"""Element by element: labels that meet are one channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes

aten = torch.ops.aten

UNTAGGED = frozenset(
    {
        aten.hardswish,
        aten.complex,
        aten.polar,
        aten.prelu,
        aten._prelu_kernel,
        aten.dropout,
        aten.native_dropout,
        aten.feature_dropout,
        aten.alpha_dropout,
        aten.masked_fill,
        aten.where,
        aten.bernoulli,
        aten.bernoulli_,
        aten.uniform_,
        aten.normal_,
        aten.exponential_,
        aten.geometric_,
        aten.log_normal_,
        aten.cauchy_,
        aten.random_,
        aten.poisson,
        aten.binomial,
        aten.randint_like,
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
"""Pointwise operations that PyTorch does not tag as such; those in place go with them."""


def is_pointwise(func: Any) -> bool:
    """Whether every output element depends on the input elements at its own place only."""
    if torch.Tag.pointwise in func.tags or func.overloadpacket in UNTAGGED:
        return True
    name = func.overloadpacket.__name__
    if func.namespace != "aten" or not name.endswith("_"):
        return False
    # What works in place is often not tagged though what it is named after is.
    plain = getattr(getattr(aten, name[:-1], None), func._overloadname, None)
    return plain is not None and is_pointwise(plain)


def pointwise(call: Call) -> Any:
    """Join the labels of all operands where they meet after broadcasting."""
    operands = [(tuple(t.shape), call.planes(t)) for t in call.tensors() if t.dim()]
    if call.func.overloadpacket is aten._prelu_kernel or call.func.overloadpacket is aten.prelu:
        operands = _prelu_operands(call)
    for number in call.args[1:]:
        if isinstance(number, int | float):
            call.flow.notes.use_value(number)
    out = call.run()
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.dim()]
    if not results:
        return out
    planes = call.merge(operands, tuple(results[0].shape))
    if all(call.is_constant(tensor) for tensor in call.tensors()):
        _same_filters(call, [planes for _, planes in operands])
    for result in results:
        if result.shape == results[0].shape:
            if any(result is t for t in call.tensors()):
                call.flow.planes.write(result, planes)
            else:
                call.set(result, planes)
    return out


def _prelu_operands(call: Call) -> list[tuple[tuple[int, ...], Planes]]:
    value, weight = call.args[:2]
    operands = [(tuple(value.shape), call.planes(value))]
    if weight.dim() == 1 and weight.numel() > 1:
        operands.append(call.over_channels(weight, 1, value.dim()))
        call.size_attribute("num_parameters", call.planes(weight)[0].reshape(-1))
    elif weight.numel() > 1:
        operands.append((tuple(weight.shape), call.planes(weight)))
    return operands


def _same_filters(call: Call, operands: list[Planes]) -> None:
    """Weights that are computed of several weights have the filters of all of them."""
    first, *others = [p for p in operands if p] or [()]
    for plane in first:
        for planes in others:
            for other in planes:
                if other.shape == plane.shape:
                    call.flow.labels.same_filters(plane, other)
