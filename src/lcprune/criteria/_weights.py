"""Criteria that look at weights alone, and one that looks at nothing."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from lcprune.criteria._coupling import Request, coupled, over_filters, rows
from lcprune.graph import FloatArray


def l1(request: Request) -> FloatArray:
    """``Σ |w|`` over a filter's weights (Li et al., "Pruning filters for efficient ConvNets",
    ICLR 2017)."""
    return over_filters(request, lambda _, filters: np.abs(filters).sum(axis=1))


def l2(request: Request) -> FloatArray:
    """``sqrt(Σ w²)`` over a filter's weights (He et al., "Soft filter pruning", IJCAI 2018)."""
    return over_filters(request, lambda _, filters: np.sqrt((filters**2).sum(axis=1)))


def l2_squared(request: Request) -> FloatArray:
    """``Σ w²`` over a filter's weights (LeGR; Chin et al., CVPR 2020)."""
    return over_filters(request, lambda _, filters: (filters**2).sum(axis=1))


def bn_scale(request: Request) -> FloatArray:
    """``|γ|`` of the normalisations that a channel passes (Liu et al., "Network slimming",
    ICCV 2017).

    γ is a one-dimensional ``weight`` of a module that normalises: one with running statistics
    or one called norm. A family without any is refused with ``InputError``.
    """
    scores = (
        (dimension.channels, np.abs(rows(request.tensor(dimension.tensor), 0))[:, 0])
        for dimension in request.graph.dimensions
        if _is_scale(request.model, dimension.tensor)
    )
    return coupled(request.graph, scores, request.reduction, "normalisation scale")


def _is_scale(model: nn.Module, tensor: str) -> bool:
    path, _, leaf = tensor.rpartition(".")
    if leaf != "weight":
        return False
    module = model.get_submodule(path)
    normalises = hasattr(module, "running_var") or "norm" in type(module).__name__.lower()
    weight = getattr(module, leaf, None)
    return normalises and isinstance(weight, Tensor) and weight.dim() == 1


def random(request: Request) -> FloatArray:
    """A uniform number in [0, 1) for each group: the control that others must beat.

    The reduction plays no part, so that coupled channels are not favoured.
    """
    return np.random.default_rng(request.seed).random(request.graph.prunable)
