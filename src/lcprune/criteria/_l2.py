"""L2 norm of filters."""

from __future__ import annotations

import numpy as np

from lcprune.criteria._coupling import over_filters
from lcprune.criteria._request import Request
from lcprune.graph import FloatArray


def l2(request: Request) -> FloatArray:
    """``sqrt(Σ w²)`` over a filter's weights (He et al., "Soft filter pruning", IJCAI 2018)."""
    return over_filters(request, lambda _, filters: np.sqrt((filters**2).sum(axis=1)))
