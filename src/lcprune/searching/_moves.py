"""Moves from widths that meet a budget to others that do."""

from __future__ import annotations

import numpy as np

from lcprune.cost import BoolArray
from lcprune.ranking import Widths
from lcprune.tracing._graph import IntArray

MOST_NARROWED = 3
MOST_WIDENED = 2
MOST_SHIFTED = 2
SHARES = 256


class Moves:
    """Exchanges of cost between families, in levels: positions in ``Widths.rungs``.

    Levels are int64 [families]; ``top`` is the highest of each, all groups of the family.
    """

    def __init__(self, widths: Widths) -> None:
        self._widths = widths
        self._rungs = widths.rungs
        self.top: IntArray = np.array([len(rungs) - 1 for rungs in widths.rungs], dtype=np.int64)

    def widths(self, levels: IntArray) -> IntArray:
        """The widths of levels."""
        chosen = zip(self._rungs, levels.tolist(), strict=True)
        return np.array([rungs[level] for rungs, level in chosen], dtype=np.int64)

    def levels(self, widths: IntArray) -> IntArray:
        """The highest levels that are no wider than ``widths`` [families]; at least 0."""
        found = [
            np.searchsorted(rungs, width, side="right") - 1
            for rungs, width in zip(self._rungs, widths, strict=True)
        ]
        return np.maximum(np.array(found, dtype=np.int64), 0)

    def uniform(self) -> IntArray:
        """The same share of every family, as wide as fits."""
        low, high = 0, int(self.top.max())
        while low < high:
            middle = (low + high + 1) // 2
            share = middle / max(int(self.top.max()), 1)
            if self._fit(np.floor(share * self.top).astype(np.int64)):
                low = middle
            else:
                high = middle - 1
        share = low / max(int(self.top.max()), 1)
        return self.filled(np.floor(share * self.top).astype(np.int64))

    def exchanged(self, levels: IntArray, step: float, generator: np.random.Generator) -> IntArray:
        """One to three families narrower, one or two wider, then whatever still fits.

        Of ``levels`` that fit; a family moves by about ``step`` of its levels, at least one.
        """
        child, families = levels.copy(), len(levels)
        if families == 1:  # nobody to exchange with
            return child
        order = generator.permutation(families)
        narrowed = int(generator.integers(1, min(MOST_NARROWED, families - 1) + 1))
        for family in order[:narrowed]:
            child[family] = max(0, child[family] - self._size(family, step, generator))
        for family in order[narrowed : narrowed + MOST_WIDENED]:
            child = self._widened(child, family, 2 * self._size(family, step, generator))
        # What was narrowed comes last, or it would take back all that it gave.
        return self.filled(child, np.roll(order, -narrowed))

    def shifted(self, levels: IntArray, step: float, generator: np.random.Generator) -> IntArray:
        """One or two families wider or narrower, all others by one share of theirs, until it fits.

        Of ``levels`` that fit; a family moves by about ``step`` of its levels, at least one.
        """
        families = len(levels)
        if families == 1:  # nobody to make room
            return levels.copy()
        order = generator.permutation(families)
        moved = order[: int(generator.integers(1, min(MOST_SHIFTED, families - 1) + 1))]
        child = levels.copy()
        for family in moved:
            sign = 1 if generator.random() < 0.5 else -1
            child[family] += sign * self._size(family, step, generator)
        child = np.clip(child, 0, self.top)
        rest = np.ones(families, dtype=np.bool_)
        rest[moved] = False
        low, high = -SHARES, SHARES
        while low < high:
            middle = (low + high + 1) // 2
            if self._fit(self._all_by(child, rest, middle / SHARES)):
                low = middle
            else:
                high = middle - 1
        child = self._all_by(child, rest, low / SHARES)
        return self.filled(child, np.roll(order, -len(moved))) if self._fit(child) else levels

    def _all_by(self, levels: IntArray, rest: BoolArray, share: float) -> IntArray:
        """Families of ``rest`` wider by a share of all their levels."""
        wider = np.rint(levels + share * self.top).astype(np.int64)
        return np.where(rest, np.clip(wider, 0, self.top), levels)

    def filled(self, levels: IntArray, order: IntArray | None = None) -> IntArray:
        """``levels`` [families], widened in turns, in ``order``, until no family can be."""
        order = np.arange(len(levels)) if order is None else order
        while True:
            wider = [family for family in order if self._can_widen(levels, family)]
            if not wider:
                return levels
            for family in wider:
                levels = self._widened(levels, family, max(1, int(self.top[family]) // 16))

    def _can_widen(self, levels: IntArray, family: int) -> bool:
        return bool(levels[family] < self.top[family]) and self._fit(_with(levels, family, 1))

    def _widened(self, levels: IntArray, family: int, most: int) -> IntArray:
        """One family as much wider as fits, by at most ``most`` levels."""
        low, high = 0, min(most, int(self.top[family] - levels[family]))
        while low < high:
            middle = (low + high + 1) // 2
            if self._fit(_with(levels, family, middle)):
                low = middle
            else:
                high = middle - 1
        return _with(levels, family, low)

    def _fit(self, levels: IntArray) -> bool:
        return bool(self._widths.fit(self.widths(levels)))

    def _size(self, family: int, step: float, generator: np.random.Generator) -> int:
        reach = abs(generator.standard_normal())
        return max(1, round(step * int(self.top[family]) * reach))


def _with(levels: IntArray, family: int, more: int) -> IntArray:
    result = levels.copy()
    result[family] += more
    return result
