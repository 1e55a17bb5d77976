"""The few plans of a search that are worth a training: good ones, and not one plan many times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lcprune.graph import BoolArray, IntArray
from lcprune.searching._strategy import UNIFORM
from lcprune.searching._trial import Trial

SHARE = 0.05
"""In how many groups finalists differ at least, as a share of those that the best plan removes.

A search ends among the neighbours of its best plan: without this the finalists would be that plan
with a channel more here and one less there.
"""


def choose_finalists(
    trials: Sequence[Trial],
    keep: Callable[[Trial], BoolArray],
    family_of: IntArray,
    count: int,
) -> list[Trial]:
    """The best trial, then the next best whose plan is another than all before, to ``count``.

    The last of several is the uniform width, where that was tried and is another plan: a fitness
    that is measured before any training may underrate it.

    ``keep`` is what a trial's plan keeps, bool [groups], and ``family_of`` the family of each
    group, int64 [groups]. Plans are two where their ``difference`` is at least ``SHARE`` of the
    groups that the best plan removes. What is not eligible and losses that are not finite are
    left out, so that there may be none at all.
    """
    ranked = sorted(
        (trial for trial in trials if trial.eligible and math.isfinite(trial.loss)),
        key=lambda trial: (trial.loss, trial.number),
    )
    chosen: list[Trial] = []
    kept: list[BoolArray] = []
    seen: set[str] = set()

    def is_another(own: BoolArray, others: list[BoolArray]) -> bool:
        least = SHARE * np.count_nonzero(~others[0]) if others else 0.0
        return all(difference(own, other, family_of) >= least for other in others)

    for trial in ranked:
        if len(chosen) == count:
            break
        if trial.digest in seen:
            continue
        seen.add(trial.digest)
        own = keep(trial)
        if is_another(own, kept):
            chosen.append(trial)
            kept.append(own)
    uniform = next((trial for trial in ranked if trial.origin == UNIFORM), None)
    if uniform is not None and count > 1 and is_another(keep(uniform), kept):
        chosen[count - 1 :] = [uniform]
    return chosen


def difference(one: BoolArray, other: BoolArray, family_of: IntArray) -> int:
    """How many groups one of two plans keeps and the other doesn't.

    A family in which that is a single group doesn't count: its width is the same but for one.
    """
    by_family = np.bincount(family_of[one != other])
    return int(by_family[by_family > 1].sum())
