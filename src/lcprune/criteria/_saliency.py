"""One score per channel group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from lcprune._checks import choice, function, instance, integer, is_iterable, module, refused
from lcprune.criteria._coupling import REDUCTIONS, Criterion, Loss, Request
from lcprune.criteria._gradients import taylor
from lcprune.criteria._weights import bn_scale, l1, l2, l2_squared, random
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, FloatArray, network_digest

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

    def __post_init__(self) -> None:
        try:
            values = np.asarray(self.values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # of arrays and tensors
            values = np.empty(())
        if values.ndim != 1:
            raise refused("values", self.values, "a score for each group, float64 [groups]")
        object.__setattr__(self, "values", values)
        instance("criterion", self.criterion, str, "a name")
        instance("reduction", self.reduction, str, "a name")


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

    Raises ``InputError`` for a graph of another network, an unknown criterion or reduction, weights
    that are not finite, a family that the criterion can't score, and data that are missing.
    """
    module("model", model)
    instance("graph", graph, ChannelGraph, "a ChannelGraph, which trace gives")
    choice("criterion", criterion, CRITERIA)
    choice("reduction", reduction, REDUCTIONS)
    integer("seed", seed, 0)
    if data is not None and not is_iterable(data):
        raise refused("data", data, "batches of (inputs, targets)")
    if loss is not None:
        function("loss", loss)
    if graph.network and graph.network != network_digest(model):
        raise InputError(
            "the graph is of another network: the model's parameters have other names or shapes"
        )
    request = Request(model, graph, reduction, data, loss, seed)
    values = np.asarray(CRITERIA[criterion](request), dtype=np.float64)
    return Saliency(values, criterion, reduction)
