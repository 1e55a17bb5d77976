"""Blocks: what a cut removes and gives back when families keep a multiple of groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lcprune._checks import refused
from lcprune.graph import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Queue:
    """Blocks one after the other, the groups of block i in one piece of ``groups``.

    ``sizes`` and ``families`` are those of each block; ``parts`` tells the blocks that are less
    than ``round_to`` groups.
    """

    groups: IntArray
    sizes: IntArray
    families: IntArray
    parts: BoolArray

    def __len__(self) -> int:
        return len(self.sizes)

    def ends(self) -> IntArray:
        """[blocks + 1]: where each block begins in ``groups``, and the end of the last one."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def first(self, length: int) -> Queue:
        """The first ``length`` blocks."""
        groups = self.groups[: int(self.sizes[:length].sum())]
        return Queue(groups, self.sizes[:length], self.families[:length], self.parts[:length])

    def reversed(self) -> Queue:
        """The same blocks from the last to the first."""
        return Queue(self.groups[::-1], self.sizes[::-1], self.families[::-1], self.parts[::-1])

    def where(self, stays: BoolArray) -> Queue:
        """The blocks for which ``stays`` is true."""
        groups = self.groups[np.repeat(stays, self.sizes)]
        return Queue(groups, self.sizes[stays], self.families[stays], self.parts[stays])

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
    """Cuts each family into blocks of ``round_to`` groups, in the order in which they go.

    A family keeps a multiple of ``round_to`` groups, or all of them: its first block, the lowest
    scores, has ``size % round_to`` groups where that is not 0, every other one ``round_to``.
    Floors are rounded up to a multiple, at most the size.
    """

    def __init__(self, family_of: IntArray, families: int, min_keep: float, round_to: int) -> None:
        if not isinstance(round_to, int) or isinstance(round_to, bool) or round_to < 1:
            raise refused("round_to", round_to, "an integer of 1 or more")
        self._family_of = family_of
        self._sizes = np.bincount(family_of, minlength=families)
        # Any step above the largest family means that all families stay whole.
        self._step = min(round_to, int(self._sizes.max(initial=0)) + 1)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._part = self._sizes % self._step
        self.floors = np.array(
            [_floor(n, min_keep, self._step) for n in self._sizes.tolist()], dtype=np.int64
        )

    @cached_property
    def rungs(self) -> tuple[IntArray, ...]:
        """The numbers of groups that each family may keep, ascending, the last one all."""
        return tuple(
            np.unique(np.append(np.arange(floor, size + 1, self._step), size))
            for floor, size in zip(self.floors.tolist(), self._sizes.tolist(), strict=True)
        )

    def refused(self, keep: BoolArray) -> tuple[int, int, int] | None:
        """The first family that ``keep`` leaves a wrong number of groups, that, and its floor."""
        counts = np.bincount(self._family_of[keep], minlength=len(self._sizes))
        whole = counts == self._sizes
        wrong = np.flatnonzero(~whole & ((counts < self.floors) | (counts % self._step != 0)))
        if not wrong.size:
            return None
        family = int(wrong[0])
        return family, int(counts[family]), int(self.floors[family])

    def in_turn(self, order: IntArray) -> Queue:
        """The blocks that may go, given all groups in ascending order of score.

        A block's turn is that of its highest group.
        """
        families = self._family_of[order]
        by_family = np.argsort(families, kind="stable")
        turn = np.empty_like(order)
        turn[by_family] = np.arange(len(order)) - self._starts[families[by_family]]
        may_go = np.flatnonzero(turn < (self._sizes - self.floors)[families])
        if self._step == 1:
            ones = np.ones(len(may_go), dtype=np.int64)
            return Queue(order[may_go], ones, families[may_go], np.zeros(len(ones), dtype=np.bool_))
        families, turn = families[may_go], turn[may_go]
        # Counted from the family's first full block on, the part before it is block -1.
        shifted = turn - self._part[families]
        last = shifted % self._step == self._step - 1
        # Both in family order: the groups of a block, and after them its highest one's turn.
        grouped = np.argsort(families, kind="stable")
        ends = np.flatnonzero(last[grouped])
        sizes = np.diff(ends, prepend=-1)
        turns = np.argsort(may_go[grouped[ends]])
        starts = ends - sizes + 1
        sizes = sizes[turns]
        within = np.arange(len(grouped)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        groups = order[may_go[grouped[np.repeat(starts[turns], sizes) + within]]]
        return Queue(
            groups, sizes, self._family_of[groups[np.cumsum(sizes) - 1]], sizes < self._step
        )


def _floor(size: int, min_keep: float, step: int) -> int:
    # Rounded first: 0.07 * 100 is a little above 7 in binary.
    least = max(1, math.ceil(round(min_keep * size, 9)))
    return min(size, -(-least // step) * step)
