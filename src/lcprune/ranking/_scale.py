"""In which units scores are compared, and how far a compensation reaches in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Scale:
    """Scores [prunable] and, per family, the standard deviation of a random offset to them."""

    scores: FloatArray
    widths: FloatArray


def scaled(graph: ChannelGraph, saliency: Saliency, scale: str) -> Scale:
    """Saliencies of ``graph`` in the units that ``scale`` names, one of ``SCALES``.

    Raises ``InputError`` for an unknown scale or scores that are not finite.
    """
    if scale not in SCALES:
        raise InputError(f"unknown scale {scale!r}, expected one of {', '.join(SCALES)}")
    values = np.asarray(saliency.values, dtype=np.float64)
    if values.shape != (graph.prunable,):
        raise InputError(f"saliency of {values.shape}, expected ({graph.prunable},): one per group")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        family = graph.families[int(graph.family_of[bad[0]])].name
        raise InputError(
            f"saliency {saliency.criterion} is {values[bad[0]]} for a channel of {family},"
            " expected finite numbers: check the weights"
        )
    return SCALES[scale](values, graph.family_of, len(graph.families))


def _raw(values: FloatArray, family_of: IntArray, families: int) -> Scale:
    population = np.maximum(np.bincount(family_of, minlength=families), 1)
    means = np.bincount(family_of, values, families) / population
    squares = np.bincount(family_of, (values - means[family_of]) ** 2, families)
    widths = np.sqrt(squares / population)
    # A family of equal scores would never move; the common width is the next best scale.
    return Scale(values, np.where(widths > 0, widths, _width(values)))


def _std(values: FloatArray, family_of: IntArray, families: int) -> Scale:
    return Scale(values, np.full(families, _width(values)))


def _log(values: FloatArray, family_of: IntArray, families: int) -> Scale:
    if values.size and values.min() < 0:
        raise InputError("the scale log takes saliencies of at least 0, these go below")
    positive = values[values > 0]
    least = positive.min() if positive.size else 1.0
    return _std(np.log(np.maximum(values, least / 2)), family_of, families)


def _rank(values: FloatArray, family_of: IntArray, families: int) -> Scale:
    ranks = stats.rankdata(values, method="average") / max(len(values), 1)
    return _std(ranks, family_of, families)


def _family_rank(values: FloatArray, family_of: IntArray, families: int) -> Scale:
    ranks = np.empty_like(values)
    for family in range(families):
        own = family_of == family
        ranks[own] = stats.rankdata(values[own], method="average") / own.sum()
    return _std(ranks, family_of, families)


def _width(scores: FloatArray) -> float:
    width = float(scores.std()) if scores.size else 0.0
    return width if width > 0 else 1.0


SCALES: Mapping[str, Callable[[FloatArray, IntArray, int], Scale]] = {
    "raw": _raw,
    "std": _std,
    "log": _log,
    "rank": _rank,
    "family-rank": _family_rank,
}
"""Units in which saliencies are compared, by name.

* ``raw``: as they are; offsets as wide as the family's own scores (Chin et al., 2018).
  Where one family sums many layers, another's offsets never reach it.
* ``std``: as they are; offsets as wide as all scores together.
* ``log``: their logarithms; an offset is then a factor, whatever a family's magnitude.
* ``rank``: ranks among all groups, in (0, 1]; the same order as ``raw`` without offsets.
* ``family-rank``: ranks within the family, in (0, 1]; without offsets every family loses
  the same share, and an offset of 0.1 keeps a tenth more of it.
"""
