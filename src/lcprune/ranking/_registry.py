"""Compensations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph
from lcprune.ranking._additive import Additive
from lcprune.ranking._affine import Affine
from lcprune.ranking._compensation import Compensation
from lcprune.ranking._scale import SCALES
from lcprune.ranking._uncompensated import Uncompensated, uniform_width

_SCALABLE: Mapping[str, Callable[[ChannelGraph, Saliency, str], Compensation]] = {
    "additive": Additive,
    "affine": Affine,
}

_FIXED: Mapping[str, Callable[[ChannelGraph, Saliency], Compensation]] = {
    "none": Uncompensated,
    "uniform": uniform_width,
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
