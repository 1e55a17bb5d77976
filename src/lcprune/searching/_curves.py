"""What narrowing each family costs, from a probe of each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lcprune.ranking import FloatArray
from lcprune.tracing._graph import IntArray

_POWER = 2.0
_LEAST = 0.1

Probe = tuple[int, int, float]
"""A family, the width that it alone was narrowed to, and what that added to the loss."""


class Curves:
    """Excess loss as ``a * removed^2`` for every family; ``removed`` is the share in 0..1.

    ``full`` is all groups of each family and ``around`` what the probes were narrowed from, both
    int64 [families]. Where a family's probe says less than a tenth of the median factor, that
    tenth is taken: so small a difference is noise. A family without a probe has the median.

    Example:
        curves = Curves(np.array([16, 32]), np.array([12, 20]), [(0, 10, 0.3), (1, 16, 0.1)])
        excess = curves.excess(np.array([[12, 32], [8, 30]]))
    """

    def __init__(self, full: IntArray, around: IntArray, probes: Iterable[Probe] = ()) -> None:
        self._full = full
        found: dict[int, float] = {}
        for family, width, excess in probes:
            steps = (1 - np.array([width, around[family]]) / full[family]) ** _POWER
            if np.isfinite(excess) and width < around[family]:
                found[family] = excess / float(steps[0] - steps[1])
        positive = [factor for factor in found.values() if factor > 0]
        middle = float(np.median(positive)) if positive else 1.0
        self._factors = np.full(len(full), middle)
        for family, factor in found.items():
            self._factors[family] = max(factor, _LEAST * middle)

    def excess(self, widths: IntArray) -> FloatArray:
        """What each family adds, float64 like ``widths`` [..., families]."""
        result: FloatArray = self._factors * (1 - widths / self._full) ** _POWER
        return result
