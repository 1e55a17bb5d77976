"""Scale of the normalisation that follows a filter."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from lcprune.criteria._coupling import coupled, rows
from lcprune.criteria._request import Request
from lcprune.graph import FloatArray


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
