"""What narrowing each family costs, from probes of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lcprune.graph import FloatArray, IntArray

_POWER = 2.0
_LEAST = 0.1

Probe = tuple[int, int, float]
"""A family, the width that it alone was narrowed to, and what that added to the loss."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Excess loss as ``factor * removed^2`` for every family; ``removed`` is the share in 0..1.

    ``full`` is all groups of each family, int64 [families]; ``factors`` float64 [families].

    Example:
        curves = Curves.around(np.array([12, 20]), [(0, 10, 0.3), (1, 16, 0.1)], np.array([16, 32]))
        excess = curves.excess(np.array([[12, 32], [8, 30]]))
    """

    full: IntArray
    factors: FloatArray

    @classmethod
    def around(cls, widths: IntArray, probes: Iterable[Probe], full: IntArray) -> Curves:
        """From probes that were narrowed from ``widths``, int64 [families].

        Where a family's probe says less than a tenth of the median factor, that tenth is taken:
        so small a difference is noise. A family without a probe has the median.
        """
        found: dict[int, float] = {}
        for family, width, excess in probes:
            steps = (1 - np.array([width, widths[family]]) / full[family]) ** _POWER
            if np.isfinite(excess) and width < widths[family]:
                found[family] = excess / float(steps[0] - steps[1])
        positive = [factor for factor in found.values() if factor > 0]
        middle = float(np.median(positive)) if positive else 1.0
        factors = np.full(len(full), middle)
        for family, factor in found.items():
            factors[family] = max(factor, _LEAST * middle)
        return cls(full, factors)

    def excess(self, widths: IntArray) -> FloatArray:
        """What each family adds, float64 like ``widths`` [..., families]."""
        result: FloatArray = self.factors * (1 - widths / self.full) ** _POWER
        return result
