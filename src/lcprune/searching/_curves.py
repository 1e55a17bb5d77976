"""What narrowing each family alone costs, from a few probes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lcprune.ranking import FloatArray
from lcprune.tracing._graph import IntArray

_LEAST_POWER, _MOST_POWER, _USUAL_POWER = 1.0, 4.0, 2.0
_LEAST_EXCESS = 1e-3
_TINY = 1e-12

Probe = tuple[int, int, float]
"""A family, its width, and the excess loss of a network in which it alone is that narrow."""


class Curves:
    """Excess loss as ``a * removed^b`` for every family; ``removed`` is the share in 0..1.

    ``full`` is all groups of each family. A family with one probe has the power 2, one without
    any the median factor of the others; excesses that are not finite are ignored.

    Example:
        curves = Curves(np.array([16, 32]), [(0, 8, 0.3), (1, 16, 0.1)])
        features = curves.excess(np.array([[12, 32], [8, 30]]))
    """

    def __init__(self, full: IntArray, probes: Iterable[Probe] = ()) -> None:
        self._full = full
        points: dict[int, list[tuple[float, float]]] = {}
        for family, width, excess in probes:
            removed = float(1 - width / full[family])
            if removed > 0 and np.isfinite(excess):
                points.setdefault(family, []).append((removed, excess))
        most = max((excess for own in points.values() for _, excess in own), default=1.0)
        # Below this a difference is noise, and its logarithm would say the more.
        least = max(_LEAST_EXCESS * most, _TINY)
        self._factors = np.full(len(full), np.nan)
        self._powers = np.full(len(full), _USUAL_POWER)
        for family, own in points.items():
            removed, excess = np.log([(share, max(value, least)) for share, value in own]).T
            spread = removed - removed.mean()
            if (spread**2).sum() > 0:
                slope = float((spread * excess).sum() / (spread**2).sum())
                self._powers[family] = np.clip(slope, _LEAST_POWER, _MOST_POWER)
            self._factors[family] = np.exp(excess.mean() - self._powers[family] * removed.mean())
        known = np.isfinite(self._factors)
        self._factors[~known] = np.median(self._factors[known]) if known.any() else 1.0

    def excess(self, widths: IntArray) -> FloatArray:
        """What each family adds, float64 like ``widths`` [..., families]."""
        result: FloatArray = self._factors * (1 - widths / self._full) ** self._powers
        return result
