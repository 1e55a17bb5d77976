"""Widths to probe, and widths from what each family was found to spare."""

from __future__ import annotations

import numpy as np

from lcprune.graph import IntArray
from lcprune.ranking import Widths
from lcprune.searching._curves import Curves

_STEPS = 32
_PROBED = 0.8
_NARROWEST, _WIDEST = 0.6, 1.5


def halfway(widths: Widths, target: IntArray) -> IntArray:
    """Between ``target`` [families] and all groups: the same factor below these as above it."""
    wide = np.sqrt(target * widths.full.astype(np.float64))
    return np.array(
        [
            rungs[np.abs(rungs - width).argmin()]
            for rungs, width in zip(widths.rungs, wide, strict=True)
        ],
        dtype=np.int64,
    )


def narrower_by_one(widths: Widths, around: IntArray, family: int) -> IntArray:
    """``around`` [families] with one family narrower by a fifth, by one step at least."""
    rungs = widths.rungs[family]
    lower = rungs[rungs < around[family]]
    probe = around.copy()
    if len(lower):
        probe[family] = lower[np.abs(lower - _PROBED * around[family]).argmin()]
    return probe


def allocate(widths: Widths, near: IntArray, curves: Curves) -> IntArray:
    """The widths at which the next channels of all families cost the same loss for each MAC.

    No family ends narrower than three fifths of its width in ``near`` [families], or wider than
    one and a half times that: farther away the curves say little. From the widest on, the
    family whose next channels are predicted to cost least loss for what they save of the bounds
    that don't hold yet is narrowed, by a thirty-second of its channels at a time, until all hold.
    """
    families = np.arange(len(near))
    steps = [max(1, len(rungs) // _STEPS) for rungs in widths.rungs]
    levels, lowest = (
        np.array(
            [
                max(np.searchsorted(rungs, share * width, side="right") - 1, 0)
                for rungs, width in zip(widths.rungs, near, strict=True)
            ],
            dtype=np.int64,
        )
        for share in (_WIDEST, _NARROWEST)
    )

    def of(levels: IntArray) -> IntArray:
        chosen = zip(widths.rungs, levels.tolist(), strict=True)
        return np.array([rungs[level] for rungs, level in chosen], dtype=np.int64)

    now = of(levels)
    while not widths.fit(now):
        lower = np.maximum(levels - steps, np.minimum(lowest, levels))
        narrower = np.tile(now, (len(now), 1))
        narrower[families, families] = of(lower)
        over = np.maximum(widths.costs(now) - widths.limits, 0) > 0
        saved = ((widths.costs(now) - widths.costs(narrower)) / widths.limits)[:, over].sum(axis=1)
        lost = curves.excess(np.diagonal(narrower)) - curves.excess(now)
        price = np.where(saved > 0, lost / np.maximum(saved, 1e-12), np.inf)
        if not np.isfinite(price).any():
            break
        family = int(price.argmin())
        levels[family] = lower[family]
        now[family] = widths.rungs[family][lower[family]]
    return now
