"""Where a global order of channels is cut so that a budget holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real

import numpy as np

from lcprune._checks import refused
from lcprune.cost import CostModel
from lcprune.errors import BudgetError, InputError
from lcprune.graph import BoolArray, ChannelGraph, FloatArray, IntArray, staying
from lcprune.ranking._blocks import AUTO, Blocks, Queue, RoundTo, blocks_of

MEASURES = ("B", "pJ", "ns")
"""Units that are printed; other amounts are counts of what the resource is called."""
REASONS = 3
"""How many reasons a refusal names."""
RUNGS = 9
"""How many numbers of groups a refusal names."""


class Cut:
    """Removes the lowest scores until every bound holds, then gives back what still fits.

    Each family keeps its best ``max(1, ceil(min_keep * groups))`` groups whatever they score,
    and a multiple of ``round_to`` groups or all of them. With ``round_to="auto"`` it keeps what
    engines like: the ``rungs`` of the first of the ``resources`` that has some, such as a table of
    latencies; else a multiple of 8 channels, of 4 where a family has less than 32, and any number
    where it has less than 4. Floors are rounded up to what may be kept.

    Blocks are what is removed and given back: the lowest groups of a family down to the next
    number that it may keep. A block goes when the turn of its highest group comes, so that no
    group goes before its turn. Of these blocks the shortest prefix in ascending order (ties by
    group id) that meets all bounds goes. Then, from the highest score down, each removed block
    returns that fits and leaves its family a number that it may keep, until none does.

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
        round_to: RoundTo = 1,
        resources: Iterable[object] = (),
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
        self.blocks = blocks_of(graph, min_keep, round_to, resources)
        self.floors = self.blocks.floors
        order = np.lexsort((cost.signatures, graph.family_of))
        changes = np.diff(cost.signatures[order]) != 0
        within = np.diff(graph.family_of[order]) == 0
        self._of_one_kind = np.ones(len(graph.families), dtype=np.bool_)
        self._of_one_kind[graph.family_of[order[1:]][changes & within]] = False

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
        if not self._fits(self._without(blocks)):
            self._refuse(order)
        removed = blocks.first(self._shortest_prefix(blocks))
        keep = np.ones(len(scores), dtype=np.bool_)
        keep[removed.groups] = False
        keep[self._given_back(keep, removed.reversed())] = True
        return keep

    def check(self, keep: BoolArray) -> None:
        """Raise ``InputError`` where a mask, bool [prunable], is none that a cut could give.

        It has to be within all bounds, and keep of every family a number of groups that it may
        keep.
        """
        costs = self._cost.evaluate(keep)
        for name, limit in self._limits.items():
            if costs[name] > limit:
                raise InputError(
                    f"mask of {self._amount(name, costs[name])} {name}, expected at most"
                    f" {self._amount(name, limit)}"
                )
        wrong = self.blocks.refused(keep)
        if wrong is not None:
            family, count = wrong
            expected = f"at least {self.floors[family]}"
            if self._round_to == AUTO:
                rungs = self.blocks.rungs[family].tolist()
                few = rungs if len(rungs) <= RUNGS else [*rungs[: RUNGS - 1], "…", rungs[-1]]
                expected += f", one of {', '.join(map(str, few))}"
            elif self._round_to != 1:
                expected += f", a multiple of {self._round_to} or all"
            raise InputError(
                f"mask that keeps {count} channels of {self._names[family]}, expected {expected}"
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
        is found by doubling and bisection instead of block by block.

        After a failure the next block of that family would not leave it a number of groups that
        it may keep, unless all its blocks are of one size: such a block is passed over, and tried
        again once others of its family have returned. Where all groups of a family cost the same
        none can: what is wider costs more than what failed.
        """
        populations = len(self._cost.populations)
        kept = np.bincount(self._cost.signatures[keep], minlength=populations)
        widths = np.bincount(self._graph.family_of[keep], minlength=len(self._names))
        returned: list[IntArray] = []
        while len(queue):
            passed = np.zeros(len(queue), dtype=np.bool_)
            kinds, places = queue.kinds(self._cost.signatures), np.arange(len(queue))
            rest, before = queue, len(returned)
            while len(rest):
                length = self._longest_run(kept, self._cost.signatures[rest.groups], rest.ends())
                stands = self._stands(rest, widths)
                length = min(length, stands)
                run = rest.first(length)
                if length:
                    kept = kept + np.bincount(
                        self._cost.signatures[run.groups], minlength=populations
                    )
                    np.add.at(widths, run.families, run.sizes)
                    returned.append(run.groups)
                if length == len(rest):
                    break
                stays = np.arange(len(rest)) > length
                if length == stands:
                    passed[places[length]] = True
                else:
                    failed = kinds == kinds[length]
                    family = rest.families[length]
                    if not self.blocks.even[family] and self._of_one_kind[family]:
                        failed |= rest.families == family
                    stays &= ~failed
                rest, kinds, places = rest.where(stays), kinds[stays], places[stays]
            if len(returned) == before:
                break
            queue = queue.where(passed)
        return np.concatenate(returned) if returned else np.zeros(0, dtype=np.int64)

    def _stands(self, queue: Queue, widths: IntArray) -> int:
        """How many blocks may return one after the other before a family is off its rungs."""
        if self.blocks.even.all():
            return len(queue)
        by_family = np.argsort(queue.families, kind="stable")
        sizes, families = queue.sizes[by_family], queue.families[by_family]
        sums = np.cumsum(sizes)
        first = np.searchsorted(families, families)
        counts = widths[families] + sums - (sums - sizes)[first]
        off = by_family[~self.blocks.stand(families, counts)]
        return int(off.min(initial=len(queue)))

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

    def _without(self, blocks: Queue) -> IntArray:
        """What is kept of each signature where all ``blocks`` go."""
        signatures = self._cost.signatures[blocks.groups]
        return self._cost.populations - np.bincount(
            signatures, minlength=len(self._cost.populations)
        )

    def _refuse(self, order: IntArray) -> None:
        least = self._least(self.blocks, order)
        before = self._cost.of_counts(self._cost.populations)[self._rows].tolist()
        parts = [
            f"{name} <= {self._amount(name, limit)} (least possible {self._amount(name, low)},"
            f" {100 * low / all_:.2f} %)"
            for (name, limit), low, all_ in zip(self._limits.items(), least, before, strict=True)
            if low > limit
        ]
        cause = self._cause(self._least(blocks_of(self._graph, self._min_keep, 1), order))
        raise BudgetError(f"budget can't be met: {'; '.join(parts)}, since {cause}")

    def _least(self, blocks: Blocks, order: IntArray) -> list[int]:
        """The bounded costs of what is left where all blocks go."""
        least: list[int] = self._cost.of_counts(self._without(blocks.in_turn(order)))[
            self._rows
        ].tolist()
        return least

    def _cause(self, exact: list[int]) -> str:
        """Why no cut is small enough: what can't be pruned, or the floors of what can.

        ``exact`` are the least possible costs with floors that are not rounded up.
        """
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
        floors = f"every family of channels keeps at least {self._min_keep:.0%}"
        if self._round_to == 1:
            return floors
        rounded = (
            "rounded up to widths that engines like"
            if self._round_to == AUTO
            else f"in multiples of {self._round_to}"
        )
        if any(low > limit for low, limit in zip(exact, self._limits.values(), strict=True)):
            return f"{floors}, {rounded}"
        amounts = " and ".join(
            f"{self._amount(name, low)} {name}"
            for name, low in zip(self._limits, exact, strict=True)
        )
        return f"{floors}, {rounded}; with --round-to 1 (round_to=1) {amounts} are possible"

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
