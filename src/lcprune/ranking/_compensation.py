"""What a search learns about each family, and how it changes the ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import stats

from lcprune._checks import refused
from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, FloatArray, IntArray


class Compensation(Protocol):
    """Turns saliencies into comparable scores with a few latent numbers per family.

    A latent is float64 [families, ``parameters``]; it is never changed in place. ``name`` is
    what a plan and a journal call the compensation.
    """

    @property
    def name(self) -> str: ...

    @property
    def parameters(self) -> int: ...

    def identity(self) -> FloatArray:
        """The latent that leaves the ranking as the criterion gave it."""

    def draw(self, generator: np.random.Generator) -> FloatArray:
        """A random latent in which every family differs from the identity."""

    def perturb(
        self, latent: FloatArray, generator: np.random.Generator, share: float, step: float
    ) -> FloatArray:
        """A copy in which ``share`` of the families, at least one, moved by about ``step``.

        A ``step`` of 1 is the width of ``draw``.
        """

    def offset(self, beta: FloatArray) -> FloatArray:
        """The latent that adds ``beta``, float64 [families], to the scores of the identity.

        Raises ``InputError`` where there is nothing to learn.
        """

    def apply(self, latent: FloatArray) -> FloatArray:
        """The scores [prunable] that the groups are sorted by, ascending is removed first."""


class Additive:
    """Scores are ``s + β`` with one β per family (Chin, Zhang, Marculescu, 2018, section 3).

    β is drawn from N(0, width), with the width that ``scale`` gives each family (see
    ``SCALES``; the paper's is ``raw``).

    Example:
        compensation = Additive(graph, saliency)
        generator = np.random.default_rng(0)
        latent = compensation.draw(generator)
        scores = compensation.apply(latent)
    """

    parameters = 1

    def __init__(self, graph: ChannelGraph, saliency: Saliency, scale: str = "raw") -> None:
        self.name = "additive" if scale == "raw" else f"additive:{scale}"
        self._family_of = graph.family_of
        self._scale = _scaled(graph, saliency, scale)

    def identity(self) -> FloatArray:
        return np.zeros((len(self._scale.widths), 1))

    def draw(self, generator: np.random.Generator) -> FloatArray:
        widths = self._scale.widths
        return (widths * generator.standard_normal(len(widths)))[:, None]

    def perturb(
        self, latent: FloatArray, generator: np.random.Generator, share: float, step: float
    ) -> FloatArray:
        child = latent.copy()
        chosen = _some_families(len(latent), share, generator)
        moves = step * self._scale.widths[chosen] * generator.standard_normal(len(chosen))
        child[chosen, 0] += moves
        return child

    def offset(self, beta: FloatArray) -> FloatArray:
        return beta[:, None]

    def apply(self, latent: FloatArray) -> FloatArray:
        scores: FloatArray = self._scale.scores + latent[self._family_of, 0]
        return scores


class Affine:
    """Scores are ``α·s + κ`` with α > 0 and κ per family (LeGR; Chin et al., CVPR 2020, eq. 2).

    α is a walk of factors ``exp(N(0, 1))``, κ one of offsets N(0, width), with the width that
    ``scale`` gives each family (see ``SCALES``). A positive α keeps the order within a family.

    Example:
        compensation = Affine(graph, saliency)
        generator = np.random.default_rng(0)
        latent = compensation.draw(generator)
        scores = compensation.apply(latent)
    """

    parameters = 2

    def __init__(self, graph: ChannelGraph, saliency: Saliency, scale: str = "raw") -> None:
        self.name = "affine" if scale == "raw" else f"affine:{scale}"
        self._family_of = graph.family_of
        self._scale = _scaled(graph, saliency, scale)

    def identity(self) -> FloatArray:
        return np.tile([1.0, 0.0], (len(self._scale.widths), 1))

    def draw(self, generator: np.random.Generator) -> FloatArray:
        families = np.arange(len(self._scale.widths))
        return self._moved(self.identity(), families, generator, 1.0)

    def perturb(
        self, latent: FloatArray, generator: np.random.Generator, share: float, step: float
    ) -> FloatArray:
        chosen = _some_families(len(latent), share, generator)
        return self._moved(latent, chosen, generator, step)

    def offset(self, beta: FloatArray) -> FloatArray:
        return np.stack([np.ones(len(beta)), beta], axis=1)

    def apply(self, latent: FloatArray) -> FloatArray:
        factors, offsets = latent[self._family_of].T
        scores: FloatArray = factors * self._scale.scores + offsets
        return scores

    def _moved(
        self, latent: FloatArray, families: IntArray, generator: np.random.Generator, step: float
    ) -> FloatArray:
        noise = step * generator.standard_normal((2, len(families)))
        child = latent.copy()
        child[families, 0] *= np.exp(noise[0])
        child[families, 1] += self._scale.widths[families] * noise[1]
        return child


class Uncompensated:
    """Scores are the saliencies in the units of ``scale``; there is nothing to learn.

    In ranks within the family it is the control ``uniform``: one width multiplier for all
    layers, every family losing the same share of its channels, the lowest scores first.

    Example:
        compensation = Uncompensated(graph, saliency)
        scores = compensation.apply(compensation.identity())
    """

    parameters = 0

    def __init__(
        self, graph: ChannelGraph, saliency: Saliency, scale: str = "raw", name: str = "none"
    ) -> None:
        self.name = name
        self._families = len(graph.families)
        self._scores = _scaled(graph, saliency, scale).scores

    def identity(self) -> FloatArray:
        return np.empty((self._families, 0))

    def draw(self, generator: np.random.Generator) -> FloatArray:
        return self.identity()

    def perturb(
        self, latent: FloatArray, generator: np.random.Generator, share: float, step: float
    ) -> FloatArray:
        return self.identity()

    def offset(self, beta: FloatArray) -> FloatArray:
        raise InputError(f"compensation {self.name} adds nothing, expected additive or affine")

    def apply(self, latent: FloatArray) -> FloatArray:
        return self._scores


def _some_families(count: int, share: float, generator: np.random.Generator) -> IntArray:
    """``share`` of ``count`` families, at least one, without repetition."""
    chosen = min(count, max(1, round(share * count)))
    return generator.choice(count, size=chosen, replace=False).astype(np.int64)


_SCALABLE: Mapping[str, Callable[[ChannelGraph, Saliency, str], Compensation]] = {
    "additive": Additive,
    "affine": Affine,
}
_FIXED: Mapping[str, Callable[[ChannelGraph, Saliency], Compensation]] = {
    "none": Uncompensated,
    "uniform": lambda graph, saliency: Uncompensated(graph, saliency, "family-rank", "uniform"),
}

COMPENSATIONS = (*_SCALABLE, *_FIXED)
"""Names of compensations; ``additive`` and ``affine`` take a scale, as in ``additive:rank``."""


def choose_compensation(
    compensation: str | Compensation, graph: ChannelGraph, saliency: Saliency
) -> Compensation:
    """The compensation of that name for these saliencies; an object is returned as it is.

    Raises ``InputError`` for an unknown name or scale.
    """
    if not isinstance(compensation, str):
        if not all(hasattr(compensation, name) for name in ("name", "identity", "apply")):
            raise refused("compensation", compensation, f"one of {', '.join(COMPENSATIONS)}")
        return compensation
    name, _, scale = compensation.partition(":")
    if name in _SCALABLE and (not scale or scale in SCALES):
        return _SCALABLE[name](graph, saliency, scale or "raw")
    if compensation in _FIXED:
        return _FIXED[compensation](graph, saliency)
    raise InputError(
        f"unknown compensation {compensation!r}, expected one of {', '.join(COMPENSATIONS)}"
        f" (additive and affine with :{'|'.join(SCALES)} if wanted)"
    )


@dataclass(frozen=True, eq=False)
class _Scale:
    """Scores [prunable] and, per family, the standard deviation of a random offset to them."""

    scores: FloatArray
    widths: FloatArray


def _scaled(graph: ChannelGraph, saliency: Saliency, scale: str) -> _Scale:
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


def _raw(values: FloatArray, family_of: IntArray, families: int) -> _Scale:
    population = np.maximum(np.bincount(family_of, minlength=families), 1)
    means = np.bincount(family_of, values, families) / population
    squares = np.bincount(family_of, (values - means[family_of]) ** 2, families)
    widths = np.sqrt(squares / population)
    # A family of equal scores would never move; the common width is the next best scale.
    return _Scale(values, np.where(widths > 0, widths, _width(values)))


def _std(values: FloatArray, family_of: IntArray, families: int) -> _Scale:
    return _Scale(values, np.full(families, _width(values)))


def _log(values: FloatArray, family_of: IntArray, families: int) -> _Scale:
    if values.size and values.min() < 0:
        raise InputError("the scale log takes saliencies of at least 0, these go below")
    positive = values[values > 0]
    least = positive.min() if positive.size else 1.0
    return _std(np.log(np.maximum(values, least / 2)), family_of, families)


def _rank(values: FloatArray, family_of: IntArray, families: int) -> _Scale:
    ranks = stats.rankdata(values, method="average") / max(len(values), 1)
    return _std(ranks, family_of, families)


def _family_rank(values: FloatArray, family_of: IntArray, families: int) -> _Scale:
    ranks = np.empty_like(values)
    for family in range(families):
        own = family_of == family
        ranks[own] = stats.rankdata(values[own], method="average") / own.sum()
    return _std(ranks, family_of, families)


def _width(scores: FloatArray) -> float:
    width = float(scores.std()) if scores.size else 0.0
    return width if width > 0 else 1.0


SCALES: Mapping[str, Callable[[FloatArray, IntArray, int], _Scale]] = {
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
