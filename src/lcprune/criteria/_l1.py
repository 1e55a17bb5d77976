"""L1 norm of filters."""

from __future__ import annotations

import numpy as np

from lcprune.criteria._coupling import over_filters
from lcprune.criteria._request import Request
from lcprune.graph import FloatArray


def l1(request: Request) -> FloatArray:
    """``Σ |w|`` over a filter's weights (Li et al., "Pruning filters for efficient ConvNets",
    ICLR 2017)."""
    return over_filters(request, lambda _, filters: np.abs(filters).sum(axis=1))
