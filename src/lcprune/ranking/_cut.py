"""Where a global order of channels is cut so that a budget holds."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np

from lcprune._checks import refused
from lcprune.cost import CostModel
from lcprune.errors import BudgetError, InputError
from lcprune.graph import BoolArray, ChannelGraph, FloatArray, IntArray, staying
from lcprune.ranking._blocks import Blocks, Queue

MEASURES = ("B", "pJ")
"""Units that are printed; other amounts are counts of what the resource is called."""
REASONS = 3
"""How many reasons a refusal names."""


class Cut:
    """Removes the lowest scores until every bound holds, then gives back what still fits.

    Each family keeps its best ``max(1, ceil(min_keep * groups))`` groups whatever they score,
    and a multiple of ``round_to`` groups or all of them. Blocks are what is removed and given
    back: the lowest ``size % round_to`` groups of a family if that is not 0, then ``round_to`` at
    a time, down to the floor, which is rounded up to a multiple (at most the size). A block goes
    when the turn of its highest group comes, so that no group goes before its turn.

    Of these blocks the shortest prefix in ascending order (ties by group id) that meets all
    bounds goes. Then, from the highest score down, each removed block returns that fits: none
    could be given back without breaking a bound, or leaving its family without a multiple.

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
        round_to: int = 1,
    ) -> None:
        known: object = min_keep
        if not isinstance(known, Real) or isinstance(known, bool) or not 0 <= min_keep < 1:
            raise refused("min_keep", min_keep, "a share of at least 0 and below 1")
        unknown = [name for name in limits if name not in cost.resources]
        if unknown or not limits:
            raise BudgetError(
                f"bounds on {unknown or 'nothing'}, expected some of {', '.join(cost.resources)}"
            )
        self._graph = graph
        self._cost = cost
        self._names = [family.name for family in graph.families]
        self._limits = dict(limits)
        self._min_keep = min_keep
        self._rows = [cost.resources.index(name) for name in limits]
        self._bounds = np.array(list(limits.values()), dtype=np.int64)
        self._round_to = round_to
        self.blocks = Blocks(graph.family_of, len(graph.families), min_keep, round_to)
        self.floors = self.blocks.floors

    def keep(self, scores: FloatArray) -> BoolArray:
        """The groups that stay, bool [prunable], for float64 scores [prunable].

        Raises ``BudgetError`` with the least possible value where the floors forbid a bound.
        """
        if not (isinstance(scores, np.ndarray) and scores.shape == (len(self._cost.signatures),)):
            raise refused("scores", scores, f"an array of {len(self._cost.signatures)} numbers")
        if not np.isfinite(scores).all():
            raise InputError("scores that are not finite, expected a finite number per group")
        order = np.argsort(scores, kind="stable")
        blocks = self.blocks.in_turn(order)
        removed = blocks.first(self._shortest_prefix(blocks))
        keep = np.ones(len(scores), dtype=np.bool_)
        keep[removed.groups] = False
        keep[self._given_back(keep, removed.reversed())] = True
        return keep

    def check(self, keep: BoolArray) -> None:
        """Raise ``InputError`` where a mask, bool [prunable], is none that a cut could give.

        It has to be within all bounds, and keep of every family its floor at least and a
        multiple of ``round_to``, or all.
        """
        costs = self._cost.evaluate(keep)
        for name, limit in self._limits.items():
            if costs[name] > limit:
                raise InputError(
                    f"mask of {self._amount(name, costs[name])} {name}, expected at most"
                    f" {self._amount(name, limit)}"
                )
        refused = self.blocks.refused(keep)
        if refused is not None:
            family, count, floor = refused
            rounded = f", a multiple of {self._round_to} or all" if self._round_to > 1 else ""
            raise InputError(
                f"mask that keeps {count} channels of {self._names[family]}, expected at least"
                f" {floor}{rounded}"
            )

    def _shortest_prefix(self, blocks: Queue) -> int:
        """How many of ``blocks`` must go, from the first on."""
        signatures = self._cost.signatures[blocks.groups]
        kinds = len(self._cost.populations)
        ends = blocks.ends()

        def fits(length: int) -> bool:
            gone = np.bincount(signatures[: ends[length]], minlength=kinds)
            return self._fits(self._cost.populations - gone)

        low, high = 0, len(blocks)
        if not fits(high):
            self._refuse(self._cost.populations - np.bincount(signatures, minlength=kinds))
        while low < high:
            middle = (low + high) // 2
            if fits(middle):
                high = middle
            else:
                low = middle + 1
        return low

    def _given_back(self, keep: BoolArray, queue: Queue) -> IntArray:
        """The groups that return of ``queue``, whose blocks are tried in the order given.

        Costs only grow here, so a block that does not fit never will, and with it all of the
        same kind: after each failure they leave the queue, and the next longest run that fits
        is found by doubling and bisection instead of block by block. The part of a family that
        is no full block, last of its family in the queue, returns only if all of it does.
        """
        populations = len(self._cost.populations)
        kept = np.bincount(self._cost.signatures[keep], minlength=populations)
        returned: list[IntArray] = []
        kinds = queue.kinds(self._cost.signatures)
        while len(queue):
            signatures = self._cost.signatures[queue.groups]
            length = self._longest_run(kept, signatures, queue.ends())
            run = queue.first(length).groups
            kept = kept + np.bincount(signatures[: len(run)], minlength=populations)
            returned.append(run)
            if length == len(queue):
                break
            failed = kinds == kinds[length]
            stays = (np.arange(len(queue)) > length) & ~failed
            if queue.parts.any():  # none where blocks are single groups: this is the slow step
                stays &= ~(queue.parts & np.isin(queue.families, queue.families[failed]))
            queue, kinds = queue.where(stays), kinds[stays]
        return np.concatenate(returned) if returned else queue.groups

    def _longest_run(self, kept: IntArray, signatures: IntArray, ends: IntArray) -> int:
        def fits(length: int) -> bool:
            added = np.bincount(signatures[: ends[length]], minlength=len(kept))
            return self._fits(kept + added)

        blocks = len(ends) - 1
        low, high = 0, 1
        while high <= blocks and fits(high):
            low, high = high, 2 * high
        high = min(high, blocks + 1)
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
            f"{name} <= {self._amount(name, limit)} (least possible {self._amount(name, low)},"
            f" {100 * low / all_:.2f} %)"
            for (name, limit), low, all_ in zip(self._limits.items(), least, before, strict=True)
            if low > limit
        ]
        raise BudgetError(f"budget can't be met: {'; '.join(parts)}, since {self._cause()}")

    def _cause(self) -> str:
        """Why no cut is small enough: what can't be pruned, or the floors of what can."""
        nothing = np.zeros_like(self._cost.populations)
        rest = self._cost.of_counts(nothing)[self._rows].tolist()
        for (name, limit), alone in zip(self._limits.items(), rest, strict=True):
            if not self._names:
                return f"no channel can be pruned{self._reasons(name)}"
            if alone > limit:
                stays = "what can't be pruned"
                of = " of" if self._cost.units[name] in MEASURES else ""
                amount = f"{self._amount(name, alone)}{of} {name}"
                return f"{stays} takes {amount} by itself{self._reasons(name)}"
        rounded = f", in multiples of {self._round_to}" if self._round_to > 1 else ""
        return f"every family of channels keeps at least {self._min_keep:.0%}{rounded}"

    def _reasons(self, name: str) -> str:
        """The largest reasons for what stays, each with its share of a resource."""
        stays = staying(self._graph)
        if not stays:
            return ""
        if name in ("macs", "params"):
            total = int(self._cost.evaluate()[name])
            amounts = {one.reason: int(getattr(one, name)) for one in stays}
            stays.sort(key=lambda one: -amounts[one.reason])
            shares = [
                f"{one.reason} ({100 * amounts[one.reason] / max(total, 1):.0f} % of the whole"
                f" network's {name}: {one.layers})"
                for one in stays[:REASONS]
            ]
        else:
            shares = [
                f"{one.reason} ({one.filters} filters: {one.layers})" for one in stays[:REASONS]
            ]
        return f": {'; '.join(shares)}" + ("; …" if len(stays) > REASONS else "")

    def _amount(self, name: str, value: int) -> str:
        unit = self._cost.units[name]
        return f"{value:,} {unit}" if unit in MEASURES else f"{value:,}"
