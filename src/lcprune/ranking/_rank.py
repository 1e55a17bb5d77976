"""Saliencies, a budget and a latent become a plan."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lcprune._checks import instance, is_iterable, refused
from lcprune.cost import Budget, Resource, cost_of
from lcprune.criteria import Saliency
from lcprune.errors import InputError, LcpruneWarning
from lcprune.graph import BoolArray, ChannelGraph, FloatArray, uncounted_sentence
from lcprune.ranking._blocks import RoundTo
from lcprune.ranking._builder import PlanBuilder
from lcprune.ranking._compensation import Compensation, choose_compensation
from lcprune.ranking._cut import Cut
from lcprune.ranking._plan import Plan
from lcprune.ranking._widths import Widths


class Ranker:
    """Ranks one graph's groups for one budget, again and again with other latents.

    ``limits`` are the budget's absolute bounds and ``before`` the whole network's cost, by
    resource name. Raises ``BudgetError`` for a budget that the network meets already, and
    ``InputError`` for saliencies that don't fit the graph.

    Example:
        ranker = Ranker(graph, saliency, Budget(macs=0.5))
        for _ in range(10):
            plan = ranker.plan(ranker.compensation.draw(generator))
    """

    def __init__(
        self,
        graph: ChannelGraph,
        saliency: Saliency,
        budget: Budget,
        *,
        compensation: str | Compensation = "additive",
        min_keep: float = 0.1,
        round_to: RoundTo = 1,
        resources: Iterable[str | Resource] = (),
    ) -> None:
        instance("the graph", graph, ChannelGraph, "a ChannelGraph, such as lcprune.trace gives")
        instance("the saliency", saliency, Saliency, "a Saliency, such as lcprune.saliency gives")
        instance("the budget", budget, Budget, "a Budget, such as Budget(macs=0.5)")
        self.compensation = choose_compensation(compensation, graph, saliency)
        self._criterion = saliency.criterion
        self._families = [family.name for family in graph.families]
        self._graph = graph
        resources = list(resources) if is_iterable(resources) else resources
        self._cost = cost = cost_of(graph, budget.asked, resources)
        self.before = cost.evaluate()
        self.limits = budget.limits(self.before)
        self._cutter = Cut(graph, cost, self.limits, min_keep, round_to, resources)
        self._builder = PlanBuilder(graph, cost)

    @cached_property
    def widths(self) -> Widths:
        """The widths that plans can have, and latents for them."""
        return Widths(self._graph, self._cost, self.compensation, self._cutter.blocks, self.limits)

    def cut(self, scores: FloatArray) -> BoolArray:
        """The groups that stay, bool [prunable], for float64 scores [prunable]; see ``Cut``.

        Raises ``BudgetError`` with the least possible value where the floors forbid a bound.
        """
        return self._cutter.keep(scores)

    def keep(self, latent: FloatArray) -> BoolArray:
        """The ``cut`` of what a latent, float64 [families, parameters], makes of the saliencies."""
        return self.cut(self.compensation.apply(latent))

    def at_least_0(self, latent: FloatArray) -> BoolArray:
        """The groups that a latent scores at least 0, bool [prunable], whatever the budget."""
        return self.compensation.apply(latent) >= 0

    def check(self, keep: BoolArray) -> None:
        """Raise ``InputError`` where a mask is not within the budget, the floors and multiples."""
        self._cutter.check(keep)

    def plan(self, latent: FloatArray) -> Plan:
        """The plan of ``keep(latent)``."""
        return self.plan_of(self.keep(latent), latent)

    def plan_of(self, keep: BoolArray, latent: npt.ArrayLike | None = None) -> Plan:
        """The plan of a mask, bool [prunable]; it names the ``latent`` that gave it, if one did."""
        if latent is None:
            return self._builder.plan(keep, criterion=self._criterion)
        rows = self.read_latent(latent).tolist()
        return self._builder.plan(
            keep,
            criterion=self._criterion,
            compensation=self.compensation.name,
            latent=dict(zip(self._families, map(tuple, rows), strict=True)),
        )

    def read_latent(self, beta: npt.ArrayLike | None) -> FloatArray:
        """``beta`` as float64 [families, parameters]; none is the identity.

        Raises ``InputError`` for another shape or numbers that are not finite.
        """
        identity = self.compensation.identity()
        if beta is None:
            return identity
        try:
            latent = np.array(beta, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise refused("beta", beta, "an array of numbers") from None
        if latent.ndim == 1 and identity.shape[1] == 1:
            latent = latent[:, None]
        if latent.shape != identity.shape:
            raise InputError(
                f"beta of {latent.shape}, expected {identity.shape} for compensation"
                f" {self.compensation.name}: one row per family"
            )
        if not np.isfinite(latent).all():
            raise InputError("beta that is not finite, expected finite numbers")
        return latent


def rank(
    graph: ChannelGraph,
    saliency: Saliency,
    budget: Budget,
    beta: npt.ArrayLike | None = None,
    *,
    compensation: str | Compensation = "additive",
    min_keep: float = 0.1,
    round_to: RoundTo = 1,
    resources: Iterable[str | Resource] = (),
) -> Plan:
    """Keep the channels with the highest compensated saliency that a budget allows.

    ``beta`` is float [families], or [families, 2] for ``compensation="affine"``; none is the
    criterion's own global ranking. Every family keeps ``max(1, ceil(min_keep * groups))``, and
    a multiple of ``round_to`` groups or all of them; for ``auto`` what engines like (see ``Cut``).
    ``resources`` are counted too, bounded or not; one stands for the one of its name, such as an
    ``Energy`` of another device or a table of latencies, whose widths ``auto`` then takes.

    Raises ``BudgetError`` for a budget that is met already or that can't be met (with the
    least possible value), ``InputError`` for saliencies or a ``beta`` that don't fit. What the
    budget can't hold, since it is not counted (``ChannelGraph.uncounted``), is warned of.

    Source: Chin, Zhang, Marculescu, "Layer-compensated pruning for resource-constrained
    convolutional neural networks", 2018, arXiv 1810.00518.
    """
    ranker = Ranker(
        graph,
        saliency,
        budget,
        compensation=compensation,
        min_keep=min_keep,
        round_to=round_to,
        resources=resources,
    )
    if graph.uncounted:
        warnings.warn(uncounted_sentence(graph), LcpruneWarning, stacklevel=2)
    return ranker.plan(ranker.read_latent(beta))
