"""Where a global order of channels is cut so that a budget holds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from lcprune.cost import BoolArray, CostModel
from lcprune.errors import BudgetError, InputError
from lcprune.ranking._compensation import FloatArray
from lcprune.tracing._graph import ChannelGraph, IntArray


class Cut:
    """Removes the lowest scores until every bound holds, then gives back what still fits.

    Each family keeps its best ``max(1, ceil(min_keep * groups))`` groups whatever they score.
    Of the rest the shortest prefix in ascending order (ties by group id) that meets all bounds
    goes. Then, from the highest score down, each removed group returns that fits: no removed
    group could be given back without breaking a bound.

    ``limits`` are absolute upper bounds by resource name.

    Example:
        cut = Cut(graph, CostModel(graph), {"macs": 60_000_000})
        keep = cut.keep(scores)
    """

    def __init__(
        self,
        graph: ChannelGraph,
        cost: CostModel,
        limits: Mapping[str, int],
        min_keep: float = 0.1,
    ) -> None:
        if not 0 <= min_keep < 1:
            raise InputError(f"min_keep is {min_keep}, expected a share in 0 … 1")
        unknown = [name for name in limits if name not in cost.resources]
        if unknown or not limits:
            raise BudgetError(
                f"bounds on {unknown or 'nothing'}, expected some of {', '.join(cost.resources)}"
            )
        self._cost = cost
        self._limits = dict(limits)
        self._min_keep = min_keep
        self._rows = [cost.resources.index(name) for name in limits]
        self._bounds = np.array(list(limits.values()), dtype=np.int64)
        self._family_of = graph.family_of
        self._sizes = np.bincount(graph.family_of, minlength=len(graph.families))
        # Rounded first: 0.07 * 100 is a little above 7 in binary.
        self.floors = np.array(
            [min(n, max(1, math.ceil(round(min_keep * n, 9)))) for n in self._sizes.tolist()],
            dtype=np.int64,
        )

    def keep(self, scores: FloatArray) -> BoolArray:
        """The groups that stay, bool [prunable], for float64 scores [prunable].

        Raises ``BudgetError`` with the least possible value where the floors forbid a bound.
        """
        if not np.isfinite(scores).all():
            raise InputError("scores that are not finite, expected a finite number per group")
        order = np.argsort(scores, kind="stable")
        candidates = order[~self._protected(order)]
        length = self._shortest_prefix(candidates)
        keep = np.ones(len(scores), dtype=np.bool_)
        keep[candidates[:length]] = False
        keep[self._given_back(keep, candidates[:length][::-1])] = True
        return keep

    def _protected(self, order: IntArray) -> BoolArray:
        """Whether each entry of ``order`` is among the best of its family."""
        families = self._family_of[order]
        by_family = np.argsort(families, kind="stable")
        starts = np.cumsum(self._sizes) - self._sizes
        place = np.empty_like(order)
        place[by_family] = np.arange(len(order)) - starts[families[by_family]]
        protected: BoolArray = place >= (self._sizes - self.floors)[families]
        return protected

    def _shortest_prefix(self, candidates: IntArray) -> int:
        """How many of ``candidates`` must go, from the first on."""
        signatures = self._cost.signatures[candidates]
        kinds = len(self._cost.populations)

        def fits(length: int) -> bool:
            gone = np.bincount(signatures[:length], minlength=kinds)
            return self._fits(self._cost.populations - gone)

        low, high = 0, len(candidates)
        if not fits(high):
            self._refuse(self._cost.populations - np.bincount(signatures, minlength=kinds))
        while low < high:
            middle = (low + high) // 2
            if fits(middle):
                high = middle
            else:
                low = middle + 1
        return low

    def _given_back(self, keep: BoolArray, removed: IntArray) -> IntArray:
        """What returns of ``removed``, tried in the order given.

        Costs only grow here, so a group that does not fit never will, and with it all of the
        same cost signature: after each failure they leave the queue, and the next longest run
        that fits is found by doubling and bisection instead of group by group.
        """
        kinds = len(self._cost.populations)
        kept = np.bincount(self._cost.signatures[keep], minlength=kinds)
        returned: list[IntArray] = []
        queue = removed
        while len(queue):
            signatures = self._cost.signatures[queue]
            length = self._longest_run(kept, signatures)
            kept = kept + np.bincount(signatures[:length], minlength=kinds)
            returned.append(queue[:length])
            if length == len(queue):
                break
            failed = signatures[length]
            queue = queue[length:][signatures[length:] != failed]
        return np.concatenate(returned) if returned else removed[:0]

    def _longest_run(self, kept: IntArray, signatures: IntArray) -> int:
        def fits(length: int) -> bool:
            added = np.bincount(signatures[:length], minlength=len(kept))
            return self._fits(kept + added)

        low, high = 0, 1
        while high <= len(signatures) and fits(high):
            low, high = high, 2 * high
        high = min(high, len(signatures) + 1)
        while high - low > 1:
            middle = (low + high) // 2
            if fits(middle):
                low = middle
            else:
                high = middle
        return low

    def _fits(self, kept: IntArray) -> bool:
        costs = self._cost.of_counts(kept)[self._rows]
        return bool((costs <= self._bounds).all())

    def _refuse(self, kept: IntArray) -> None:
        least = self._cost.of_counts(kept)[self._rows].tolist()
        before = self._cost.of_counts(self._cost.populations)[self._rows].tolist()
        parts = [
            f"{name} <= {limit:,} (least possible {low:,}, {100 * low / all_:.2f} %)"
            for (name, limit), low, all_ in zip(self._limits.items(), least, before, strict=True)
            if low > limit
        ]
        raise BudgetError(
            f"budget can't be met: {'; '.join(parts)}, since every family of channels"
            f" keeps at least {self._min_keep:.0%}"
        )
