"""A criterion that knows nothing."""

from __future__ import annotations

import numpy as np

from lcprune.criteria._request import Request
from lcprune.graph import FloatArray


def random(request: Request) -> FloatArray:
    """A uniform number in [0, 1) for each group: the control that others must beat.

    The reduction plays no part, so that coupled channels are not favoured.
    """
    return np.random.default_rng(request.seed).random(request.graph.prunable)
