"""Widths from what each family was found to spare."""

from __future__ import annotations

import numpy as np

from lcprune.ranking import Widths
from lcprune.searching._curves import Curves
from lcprune.tracing._graph import IntArray

_STEPS = 32


def probe_widths(widths: Widths, most: int) -> list[IntArray]:
    """The whole network, then each family alone at two widths, or one, or none: at most ``most``.

    The wider one is the square root of the share that the tightest bound leaves, about what a
    uniform cut would leave of a layer between two others; the narrower one half of that.
    """
    families = len(widths.full)
    share = float((widths.limits / widths.costs(widths.full)).min()) ** 0.5
    shares = (share, share / 2) if 2 * families < most else (0.75 * share,)
    if families >= most:
        return []
    probes = [widths.full]
    for part in shares:
        for family, rungs in enumerate(widths.rungs):
            probe = widths.full.copy()
            probe[family] = rungs[np.abs(rungs - part * probe[family]).argmin()]
            if probe[family] < widths.full[family]:
                probes.append(probe)
    return probes


def allocate(widths: Widths, curves: Curves) -> IntArray:
    """The widths at which the next channels of all families cost the same loss for each MAC.

    From the whole network on, the family whose next channels are predicted to cost least loss
    for what they save of the bounds that don't hold yet is narrowed, by a thirty-second of its
    channels at a time, until all bounds hold.
    """
    now = widths.full.copy()
    families = np.arange(len(now))
    steps = [max(1, len(rungs) // _STEPS) for rungs in widths.rungs]
    levels = np.array([len(rungs) - 1 for rungs in widths.rungs], dtype=np.int64)
    while not widths.fit(now):
        lower = np.maximum(levels - steps, 0)
        narrower = np.tile(now, (len(now), 1))
        narrower[families, families] = [
            rungs[i] for rungs, i in zip(widths.rungs, lower, strict=True)
        ]
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
