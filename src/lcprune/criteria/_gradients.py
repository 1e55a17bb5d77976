"""Criteria that look at gradients of the loss."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune._checks import refused, told_in_one_line
from lcprune.criteria._coupling import Loss, Request, over_filters, rows
from lcprune.errors import InputError
from lcprune.graph import FloatArray


def taylor(request: Request) -> FloatArray:
    """Mean over batches of ``|Σ w · ∂L/∂w|`` over a filter's weights.

    The inner sum is the first-order change of the loss when the whole filter goes to zero, the
    weight form of Molchanov et al. ("Importance estimation for neural network pruning", CVPR
    2019, eqs. 7 and 8, there squared) with the magnitude of Molchanov et al. (ICLR 2017,
    eq. 7). The magnitude is taken batch by batch: at a minimum the mean gradient vanishes and
    would say nothing. The batch size is thus part of the criterion.

    Gradients are taken in eval mode on a copy, in the model's own precision. Raises
    ``InputError`` without ``data`` and where the loss has no gradient.
    """
    if request.data is None:
        raise InputError("criterion taylor needs data=, batches of (inputs, targets)")
    loss = functional.cross_entropy if request.loss is None else request.loss
    with told_in_one_line("the model can't be copied"):
        model = copy.deepcopy(request.model).eval()
    watched = Request(model, request.graph, request.reduction, None, None, request.seed)
    weights = {name: watched.tensor(name) for name, _ in request.graph.producers}
    for weight in weights.values():
        weight.requires_grad_(True)
    totals = {
        (name, dim): np.zeros(weights[name].shape[dim]) for name, dim in request.graph.producers
    }
    batches = 0
    for batch in request.data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise refused(f"batch {batches} of data", batch, "(inputs, targets)")
        gradients = _gradients(model, *batch, loss, weights)
        for (name, dim), total in totals.items():
            change = (rows(weights[name], dim) * rows(gradients[name], dim)).sum(axis=1)
            total += np.abs(change)
        batches += 1
    if not batches:
        raise InputError("criterion taylor was given no batch, expected one or more in data=")
    return over_filters(request, lambda key, _: totals[key] / batches)


def _gradients(
    model: nn.Module, inputs: Any, targets: Any, loss: Loss, weights: dict[str, Tensor]
) -> dict[str, Tensor]:
    with torch.enable_grad():
        with told_in_one_line("the model can't be run on the inputs in data"):
            outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        with told_in_one_line("the loss of the outputs can't be taken"):
            value = loss(outputs, targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise InputError("loss= returned no scalar, expected a tensor with one element")
        if not value.requires_grad:
            raise InputError("loss has no gradient to any filter, expected a differentiable loss")
        found = torch.autograd.grad(value.reshape(()), list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
    }
