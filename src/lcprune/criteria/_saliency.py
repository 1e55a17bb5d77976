"""One score per channel group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from lcprune.criteria._coupling import REDUCTIONS, Criterion, Loss, Request
from lcprune.criteria._gradients import taylor
from lcprune.criteria._weights import bn_scale, l1, l2, l2_squared, random
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, FloatArray

CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "l2_squared": l2_squared,
    "taylor": taylor,
    "bn_scale": bn_scale,
    "random": random,
}
"""Every criterion by name; add to it to register another."""


@dataclass(frozen=True, eq=False)
class Saliency:
    """A criterion's score for every prunable group, float64 [prunable]."""

    values: FloatArray
    criterion: str
    reduction: str


def saliency(
    model: nn.Module,
    graph: ChannelGraph,
    criterion: str = "l2",
    *,
    reduction: str = "sum",
    data: Iterable[tuple[Any, Any]] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> Saliency:
    """Score every prunable group of ``graph`` by one of ``CRITERIA``; the model stays as it is.

    Where filters of several layers make a group, ``reduction`` (``sum``, ``mean`` or ``max``)
    joins their scores. ``data`` yields batches (inputs, targets) and ``loss`` maps outputs and
    targets to a scalar, none being the cross-entropy; only ``taylor`` uses them. ``seed`` is
    for ``random``.

    Raises ``InputError`` for an unknown criterion or reduction, weights that are not finite, a
    family that the criterion can't score, and data that are missing.
    """
    if criterion not in CRITERIA:
        raise InputError(f"unknown criterion {criterion!r}, expected one of {', '.join(CRITERIA)}")
    if reduction not in REDUCTIONS:
        known = ", ".join(REDUCTIONS)
        raise InputError(f"unknown reduction {reduction!r}, expected one of {known}")
    request = Request(model, graph, reduction, data, loss, seed)
    values = np.asarray(CRITERIA[criterion](request), dtype=np.float64)
    return Saliency(values, criterion, reduction)
