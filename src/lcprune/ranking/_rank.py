"""Saliencies, a budget and a latent become a plan."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from lcprune.cost import Budget, CostModel
from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.graph import BoolArray, ChannelGraph, FloatArray, IntArray
from lcprune.ranking._compensation import Compensation
from lcprune.ranking._cut import Cut
from lcprune.ranking._from_keep import PlanBuilder
from lcprune.ranking._plan import Plan
from lcprune.ranking._registry import choose_compensation
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
        round_to: int = 1,
    ) -> None:
        self.compensation = choose_compensation(compensation, graph, saliency)
        self._criterion = saliency.criterion
        self._families = [family.name for family in graph.families]
        self._graph = graph
        self._cost = cost = CostModel(graph, [*dict.fromkeys(("macs", "params", *budget.asked))])
        self.before = cost.evaluate()
        self.limits = budget.limits(self.before)
        self._cut = Cut(graph, cost, self.limits, min_keep, round_to)
        self._builder = PlanBuilder(graph, cost)

    def keep(self, latent: FloatArray) -> BoolArray:
        """The groups that stay, bool [prunable]; see ``plan``."""
        return self._cut.keep(self.compensation.apply(latent))

    @cached_property
    def widths(self) -> Widths:
        """The widths that plans can have, and latents for them."""
        return Widths(self._graph, self._cost, self.compensation, self._cut.blocks, self.limits)

    def plan(self, latent: FloatArray) -> Plan:
        """The plan for a latent, float64 [families, parameters].

        Raises ``BudgetError`` with the least possible value where the floors forbid a bound.
        """
        return self._plan(self.keep(latent), latent)

    def kept(self, latent: FloatArray) -> IntArray:
        """How many groups of each family the plan for a latent keeps, int64 [families]."""
        return self._by_family(self.keep(latent))

    def probe(self, latent: FloatArray) -> Plan:
        """The plan that keeps what a latent scores at least 0, whatever the budget."""
        return self._plan(self._at_least_0(latent), latent)

    def probed(self, latent: FloatArray) -> IntArray:
        """How many groups of each family ``probe`` keeps, int64 [families]."""
        return self._by_family(self._at_least_0(latent))

    def _at_least_0(self, latent: FloatArray) -> BoolArray:
        return self.compensation.apply(latent) >= 0

    def _by_family(self, keep: BoolArray) -> IntArray:
        return np.bincount(self._graph.family_of[keep], minlength=len(self._families))

    def _plan(self, keep: BoolArray, latent: FloatArray) -> Plan:
        return self._builder.plan(
            keep,
            criterion=self._criterion,
            compensation=self.compensation.name,
            latent={
                name: tuple(values)
                for name, values in zip(self._families, latent.tolist(), strict=True)
            },
        )

    def read_latent(self, beta: npt.ArrayLike | None) -> FloatArray:
        """``beta`` as float64 [families, parameters]; none is the identity.

        Raises ``InputError`` for another shape or numbers that are not finite.
        """
        identity = self.compensation.identity()
        if beta is None:
            return identity
        latent = np.array(beta, dtype=np.float64)
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
    round_to: int = 1,
) -> Plan:
    """Keep the channels with the highest compensated saliency that a budget allows.

    ``beta`` is float [families], or [families, 2] for ``compensation="affine"``; none is the
    criterion's own global ranking. Every family keeps ``max(1, ceil(min_keep * groups))``, and
    a multiple of ``round_to`` groups or all of them (see ``Cut``).

    Raises ``BudgetError`` for a budget that is met already or that can't be met (with the
    least possible value), ``InputError`` for saliencies or a ``beta`` that don't fit.

    Source: Chin, Zhang, Marculescu, "Layer-compensated pruning for resource-constrained
    convolutional neural networks", 2018, arXiv 1810.00518.
    """
    ranker = Ranker(
        graph, saliency, budget, compensation=compensation, min_keep=min_keep, round_to=round_to
    )
    return ranker.plan(ranker.read_latent(beta))
