"""Moves from widths that meet a budget to others that do."""

from __future__ import annotations

import numpy as np

from lcprune.graph import BoolArray, FloatArray, IntArray
from lcprune.ranking import Widths

MOST_MOVED = 6
STEPS = (0.05, 0.5)
SHARES = 256


class Moves:
    """Exchanges of cost between families, in levels: positions in ``Widths.rungs``.

    Levels are int64 [..., families]; ``top`` is the highest of each, all groups of the family.
    """

    def __init__(self, widths: Widths) -> None:
        self._widths = widths
        self._rungs = widths.rungs
        self.top: IntArray = np.array([len(rungs) - 1 for rungs in widths.rungs], dtype=np.int64)
        # One array for all: the families' rungs one after the other.
        self._joined = np.concatenate(widths.rungs)
        self._starts = np.cumsum([0, *(self.top[:-1] + 1)])

    def widths(self, levels: IntArray) -> IntArray:
        """The widths of levels [..., families]."""
        widths: IntArray = self._joined[self._starts + levels]
        return widths

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

    def around(self, starts: IntArray, generator: np.random.Generator) -> IntArray:
        """Levels near ``starts`` [n, families] that fit, at most one for each.

        One to six families move, wider or narrower, each by a normal step whose scale is 5 to
        50 % of its levels; all others move by one share of theirs, as wide as fits. Some of the
        widths are left: what is asked for has to be ``filled``.
        """
        count, families = starts.shape
        if families == 1:  # nobody to make room
            return starts
        most = min(MOST_MOVED, families - 1)
        order = generator.random(starts.shape).argsort(axis=1)
        moved = order < generator.integers(1, most + 1, size=(count, 1))
        low_step, high_step = STEPS
        scale = low_step * (high_step / low_step) ** generator.random((count, 1))
        step = np.rint(scale * self.top * generator.standard_normal(starts.shape))
        step = np.where(step == 0, generator.choice([-1, 1], size=starts.shape), step)
        moves = np.clip(starts + np.where(moved, step, 0), 0, self.top).astype(np.int64)
        low, high = np.full((count, 1), -SHARES), np.full((count, 1), SHARES)
        while (low < high).any():
            middle = (low + high + 1) // 2
            fit = self._fit(self._others_by(moves, moved, middle / SHARES))[:, None]
            low, high = np.where(fit, middle, low), np.where(fit, high, middle - 1)
        children = self._others_by(moves, moved, low / SHARES)
        return children[self._fit(children)]

    def _others_by(self, levels: IntArray, moved: BoolArray, shares: FloatArray) -> IntArray:
        """All but the ``moved`` families wider by a share of all their levels."""
        wider = np.rint(levels + shares * self.top).astype(np.int64)
        return np.where(moved, levels, np.clip(wider, 0, self.top))

    def filled(self, levels: IntArray, order: IntArray | None = None) -> IntArray:
        """``levels`` [families], widened in turns, in ``order``, until no family can be."""
        order = np.arange(len(levels)) if order is None else order
        while True:
            wider = self._can_widen(levels)
            if not wider.any():
                return levels
            for family in order[wider[order]]:
                levels = self._widened(levels, family, max(1, int(self.top[family]) // 16))

    def _can_widen(self, levels: IntArray) -> BoolArray:
        """Of each family, whether it alone can be one level wider."""
        each = np.minimum(levels + np.eye(len(levels), dtype=np.int64), self.top)
        can: BoolArray = (levels < self.top) & self._fit(each)
        return can

    def _widened(self, levels: IntArray, family: int, most: int) -> IntArray:
        """One family as much wider as fits, by at most ``most`` levels."""
        most = min(most, int(self.top[family] - levels[family]))
        wider = np.repeat(levels[None], most, axis=0)
        wider[:, family] += np.arange(1, most + 1)
        return _with(levels, family, int(np.count_nonzero(self._fit(wider))))

    def _fit(self, levels: IntArray) -> BoolArray:
        return self._widths.fit(self.widths(levels))


def _with(levels: IntArray, family: int, more: int) -> IntArray:
    result = levels.copy()
    result[family] += more
    return result
