"""What a pruned network costs, in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod

import numpy as np

from lcprune._checks import instance, is_iterable, refused
from lcprune.cost._bound import BoundCost, LargestSum, Resource, renumbered
from lcprune.cost._counts import CountMatrix, Sums
from lcprune.cost._resources import RESOURCES, resource_named
from lcprune.errors import InputError
from lcprune.graph import BoolArray, ChannelGraph, IntArray


class CostModel:
    """The cost of any choice of channels, in microseconds, without building a network.

    ``resources`` are names of ``RESOURCES``, or resources of your own. Kept sizes are linear in
    the mask, and most costs are sums of products of sizes: a cost is one sparse product, one
    elementwise product and one sum, all in exact 64-bit integers. ``units`` says in what the costs
    of each resource are.

    ``signatures`` is the cost signature of each prunable group: groups with the same one are
    interchangeable to every cost. ``populations`` is how many groups have each.

    Raises ``BudgetError`` for a resource that there isn't.
    """

    def __init__(
        self, graph: ChannelGraph, resources: Sequence[str | Resource] = ("macs", "params")
    ) -> None:
        instance("the graph", graph, ChannelGraph, "a ChannelGraph, such as lcprune.trace gives")
        self._graph = graph
        chosen = [resource_named(r) if isinstance(r, str) else r for r in _checked(resources)]
        self.resources: tuple[str, ...] = tuple(resource.name for resource in chosen)
        self.units: dict[str, str] = {resource.name: resource.unit for resource in chosen}
        bound = [resource.bind(graph) for resource in chosen]
        vectors = sorted({vector for cost in bound for vector in cost.vectors})
        self._matrix = CountMatrix([graph.vectors[vector] for vector in vectors], graph.prunable)
        self.signatures: IntArray = self._matrix.signatures
        self.populations: IntArray = self._matrix.populations

        # All sums are evaluated at once; what is no sum gets the sizes that it reads.
        sums = [renumbered(cost.sums, vectors) for cost in bound if isinstance(cost, LargestSum)]
        self._sums = Sums([one for several in sums for one in several])
        ends = np.cumsum([len(several) for several in sums], dtype=np.int64)
        self._starts = None if len(ends) and ends[-1] == len(ends) else [0, *ends.tolist()][:-1]
        divisors = [cost.divisor for cost in bound if isinstance(cost, LargestSum)]
        self._divisors = np.array(divisors) if any(d != 1 for d in divisors) else None
        rows = [i for i, cost in enumerate(bound) if isinstance(cost, LargestSum)]
        self._rows = None if len(rows) == len(bound) else rows
        self._others: list[tuple[int, BoundCost, IntArray]] = [
            (i, cost, np.searchsorted(vectors, cost.vectors))
            for i, cost in enumerate(bound)
            if not isinstance(cost, LargestSum)
        ]

    def evaluate(self, keep: BoolArray | None = None) -> dict[str, int]:
        """Cost by resource name; ``keep`` is bool [prunable], none means that all stay.

        Raises ``InputError`` where ``keep`` has another length or type.
        """
        costs = self.of_counts(self._kept(keep))
        return {name: int(costs[i]) for i, name in enumerate(self.resources)}

    def of_counts(self, kept: IntArray) -> IntArray:
        """Costs [resources], given the number of kept groups of each signature.

        ``kept`` is [signatures], or [signatures, n] for n masks at once: then [resources, n].
        """
        counts = self._matrix.counts(kept)
        costs = self._sums(counts)
        if self._starts is not None and self._starts:
            costs = np.maximum.reduceat(costs, self._starts, axis=0)
        if self._divisors is not None:
            costs = -(-costs // (self._divisors if kept.ndim == 1 else self._divisors[:, None]))
        if self._rows is None:
            return costs
        every = np.empty((len(self.resources), *kept.shape[1:]), dtype=np.int64)
        every[self._rows] = costs
        for row, cost, positions in self._others:
            sizes = counts[positions]
            every[row] = cost(sizes) if kept.ndim > 1 else cost(sizes[:, None])[0]
        return every

    def by_op(self, keep: BoolArray | None = None) -> dict[str, int]:
        """MACs by module name, in the order of execution; a module used twice counts twice."""
        alive = np.ones(self._graph.prunable + len(self._graph.pinned_reasons) + 1, dtype=np.bool_)
        if keep is not None:
            check_mask(keep, self._graph.prunable)
            alive[: len(keep)] = keep
        sizes: dict[int, int] = {}
        macs: dict[str, int] = {}
        for op in self._graph.ops:
            if op.coefficient:
                for factor in op.factors:
                    if factor not in sizes:
                        # FIXED, which is -1, finds the last entry, which is kept.
                        sizes[factor] = int(alive[self._graph.vectors[factor]].sum())
                value = op.coefficient * prod(sizes[factor] for factor in op.factors)
                macs[op.module] = macs.get(op.module, 0) + value
        return macs

    def _kept(self, keep: BoolArray | None) -> IntArray:
        if keep is None:
            return self.populations
        check_mask(keep, self._graph.prunable)
        return np.bincount(self.signatures[keep], minlength=len(self.populations))


def cost_of(
    graph: ChannelGraph, further: Iterable[str] = (), own: Iterable[str | Resource] = ()
) -> CostModel:
    """The cost model of ``macs``, ``params``, ``further`` names of ``RESOURCES``, and ``own``.

    A resource of one's own stands for the one of its name. Without any the model is made once for
    all that rank and plan on a graph.
    """
    names = tuple(dict.fromkeys(("macs", "params", *further)))
    mine = {one if isinstance(one, str) else one.name: one for one in _checked(own)}
    if mine:
        return CostModel(graph, [*({name: name for name in names} | mine).values()])
    return _made(graph, names)


@lru_cache(maxsize=4)
def _made(graph: ChannelGraph, resources: tuple[str, ...]) -> CostModel:
    return CostModel(graph, resources)


def _checked(resources: Iterable[str | Resource]) -> list[str | Resource]:
    if not is_iterable(resources):
        raise refused("resources", resources, "a tuple of names, such as ('macs', 'params')")
    found = list(resources)
    for one in found:
        if not isinstance(one, str) and (isinstance(one, type) or not isinstance(one, Resource)):
            raise refused("a resource", one, f"a Resource, or one of {', '.join(RESOURCES)}")
    return found


def check_mask(keep: BoolArray, prunable: int) -> None:
    """Raise ``InputError`` unless ``keep`` is a bool array with an entry for each group."""
    if not isinstance(keep, np.ndarray):
        raise refused("the mask", keep, f"an array of bool ({prunable},): one per group")
    if keep.dtype != np.bool_ or keep.shape != (prunable,):
        raise InputError(
            f"mask of {keep.dtype} {keep.shape}, expected bool ({prunable},): one per group"
        )
