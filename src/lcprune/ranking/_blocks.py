"""Blocks: what a cut removes and gives back where families keep certain numbers of groups only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from lcprune._checks import refused
from lcprune.errors import InputError
from lcprune.graph import BoolArray, ChannelGraph, IntArray

RoundTo = int | Literal["auto"]
"""A multiple of groups, or what engines like."""

AUTO = "auto"
LIKED, NARROW, LIKED_IF_NARROW = 8, 32, 4
"""Every common engine is fast at multiples of 8 channels; families of less than 32 channels keep a
multiple of 4, which ONNX Runtime's blocked layout still takes."""


@runtime_checkable
class Rungs(Protocol):
    """A resource that knows at which widths a network gets faster, such as a table of latencies."""

    def rungs(self, graph: ChannelGraph) -> Sequence[IntArray]:
        """By family the numbers of groups at which its cost steps, ascending, the last one all."""


@dataclass(frozen=True, eq=False)
class Queue:
    """Blocks one after the other, the groups of block i in one piece of ``groups``.

    ``sizes`` and ``families`` are those of each block.
    """

    groups: IntArray
    sizes: IntArray
    families: IntArray

    def __len__(self) -> int:
        return len(self.sizes)

    def ends(self) -> IntArray:
        """[blocks + 1]: where each block begins in ``groups``, and the end of the last one."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def first(self, length: int) -> Queue:
        """The first ``length`` blocks."""
        groups = self.groups[: int(self.sizes[:length].sum())]
        return Queue(groups, self.sizes[:length], self.families[:length])

    def reversed(self) -> Queue:
        """The same blocks from the last to the first."""
        return Queue(self.groups[::-1], self.sizes[::-1], self.families[::-1])

    def where(self, stays: BoolArray) -> Queue:
        """The blocks for which ``stays`` is true."""
        groups = self.groups[np.repeat(stays, self.sizes)]
        return Queue(groups, self.sizes[stays], self.families[stays])

    def kinds(self, signatures: IntArray) -> IntArray:
        """A number per block; blocks with the same one add the same to every cost."""
        own = signatures[self.groups]
        columns = int(self.sizes.max(initial=1))
        if columns == 1:
            return own
        block = np.repeat(np.arange(len(self)), self.sizes)
        rows = np.full((len(self), columns), -1, dtype=np.int64)
        rows[block, np.arange(len(own)) - self.ends()[block]] = own[np.lexsort((own, block))]
        return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


class Blocks:
    """Cuts each family into blocks, in the order in which they go.

    ``rungs`` are the numbers of groups that each family may keep, ascending, the last one all:
    what lies between two of them is a block, of the lowest scores the first. ``floors`` are the
    lowest rungs, and ``even`` tells the families whose blocks are all of one size.
    """

    def __init__(self, family_of: IntArray, rungs: Sequence[IntArray]) -> None:
        self._family_of = family_of
        self.rungs = tuple(rungs)
        self._sizes = np.array([own[-1] for own in self.rungs], dtype=np.int64)
        self.floors = np.array([own[0] for own in self.rungs], dtype=np.int64)
        self.even = np.array([len(set(np.diff(own).tolist())) <= 1 for own in self.rungs], bool)
        self._starts = np.cumsum(self._sizes) - self._sizes
        # The families one after the other, each with an entry for every number of groups but 0.
        self._on_rung = np.zeros(int(self._sizes.sum()), dtype=np.bool_)
        for start, own in zip(self._starts.tolist(), self.rungs, strict=True):
            self._on_rung[start + own - 1] = True

    def refused(self, keep: BoolArray) -> tuple[int, int] | None:
        """The first family that ``keep`` leaves a wrong number of groups, and that number."""
        counts = np.bincount(self._family_of[keep], minlength=len(self._sizes))
        wrong = np.flatnonzero(~self.stand(np.arange(len(counts)), counts))
        return (int(wrong[0]), int(counts[wrong[0]])) if wrong.size else None

    def stand(self, families: IntArray, counts: IntArray) -> BoolArray:
        """Whether families that keep so many groups stand on a rung."""
        on_rung: BoolArray = (counts > 0) & self._on_rung[self._starts[families] + counts - 1]
        return on_rung

    def in_turn(self, order: IntArray) -> Queue:
        """The blocks that may go, given all groups in ascending order of score.

        A block's turn is that of its highest group.
        """
        families = self._family_of[order]
        by_family = np.argsort(families, kind="stable")
        turn = np.empty_like(order)
        turn[by_family] = np.arange(len(order)) - self._starts[families[by_family]]
        left = self._sizes[families] - turn - 1  # once it has gone
        may_go = np.flatnonzero(left >= self.floors[families])
        families, left = families[may_go], left[may_go]
        last = self.stand(families, left)
        if last.all():
            return Queue(order[may_go], np.ones(len(may_go), dtype=np.int64), families)
        # Both in family order: the groups of a block, and after them its highest one's turn.
        grouped = np.argsort(families, kind="stable")
        ends = np.flatnonzero(last[grouped])
        sizes = np.diff(ends, prepend=-1)
        turns = np.argsort(may_go[grouped[ends]])
        starts = ends - sizes + 1
        sizes = sizes[turns]
        within = np.arange(len(grouped)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        groups = order[may_go[grouped[np.repeat(starts[turns], sizes) + within]]]
        return Queue(groups, sizes, self._family_of[groups[np.cumsum(sizes) - 1]])


def blocks_of(
    graph: ChannelGraph, min_keep: float, round_to: RoundTo, resources: Iterable[object] = ()
) -> Blocks:
    """The blocks of a graph whose families keep ``max(1, ceil(min_keep * groups))`` at least.

    They keep a multiple of ``round_to`` groups, or all of them. For ``auto`` they stand on the
    rungs of the first of the ``resources`` that has some; without one they keep a multiple of 8
    channels, of 4 where the family has less than 32, and any number where it has less than 4:
    then no width is a multiple, not even the whole one's. Floors are rounded up.
    """
    known: object = round_to  # of any type, whatever is promised
    of_liked = isinstance(known, str) and known == AUTO
    if not of_liked and (not isinstance(known, int) or isinstance(known, bool) or known < 1):
        raise refused("round_to", known, f"an integer of 1 or more, or {AUTO}")
    sizes = np.bincount(graph.family_of, minlength=len(graph.families))
    if isinstance(round_to, int):
        # Any step above the largest family means that all families stay whole.
        steps = [min(round_to, int(sizes.max(initial=0)) + 1)] * len(sizes)
    else:
        named = next((one for one in resources if isinstance(one, Rungs)), None)
        if named is not None:
            return Blocks(graph.family_of, _of_resource(named, graph, sizes, min_keep))
        steps = _liked_steps(graph)
    rungs = []
    for size, step in zip(sizes.tolist(), steps, strict=True):
        least = -(-_least(size, min_keep) // step) * step
        rungs.append(np.unique(np.append(np.arange(least, size + 1, step), size)))
    return Blocks(graph.family_of, rungs)


def _least(size: int, min_keep: float) -> int:
    # Rounded first: 0.07 * 100 is a little above 7 in binary.
    return max(1, math.ceil(round(min_keep * size, 9)))


def _of_resource(
    resource: Rungs, graph: ChannelGraph, sizes: IntArray, min_keep: float
) -> list[IntArray]:
    """The rungs that a resource names, from each family's floor on."""
    name = getattr(resource, "name", type(resource).__name__)
    given = [np.asarray(own) for own in resource.rungs(graph)]
    if len(given) != len(sizes):
        raise InputError(f"rungs of {name}: {len(given)} families, expected {len(sizes)}")
    rungs = []
    for family, own, size in zip(graph.families, given, sizes.tolist(), strict=True):
        right = own.ndim == 1 and own.dtype.kind in "iu" and own.size > 0 and own[-1] == size
        if not (right and own[0] >= 1 and (np.diff(own) > 0).all()):
            raise InputError(
                f"rungs of {name} for {family.name}: expected ascending integers of 1 or more that"
                f" end with {size}"
            )
        rungs.append(own[own >= _least(size, min_keep)].astype(np.int64))
    return rungs


def _liked_steps(graph: ChannelGraph) -> list[int]:
    """By family, how many groups are a number of channels that every common engine likes.

    Counted in the layers that make the channels: a group is several of them in some.
    """
    sizes = np.bincount(graph.family_of, minlength=len(graph.families))
    steps = [1] * len(sizes)
    for key in graph.producers:
        channels = graph.dimension(*key).channels
        own = channels[(channels >= 0) & (channels < graph.prunable)]
        groups, counts = np.unique(own, return_counts=True)
        for family in np.unique(graph.family_of[groups]).tolist():
            mine = counts[graph.family_of[groups] == family]
            each, total = gcd(*mine.tolist()), int(mine.sum())
            liked = LIKED_IF_NARROW if total < NARROW else LIKED
            if total >= liked:
                step = liked // gcd(liked, each)
                steps[family] = step * steps[family] // gcd(step, steps[family])
    return steps
