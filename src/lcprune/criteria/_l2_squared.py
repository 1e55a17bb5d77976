"""Squared L2 norm of filters."""

from __future__ import annotations

from lcprune.criteria._coupling import over_filters
from lcprune.criteria._request import Request
from lcprune.graph import FloatArray


def l2_squared(request: Request) -> FloatArray:
    """``Σ w²`` over a filter's weights (LeGR; Chin et al., CVPR 2020)."""
    return over_filters(request, lambda _, filters: (filters**2).sum(axis=1))
