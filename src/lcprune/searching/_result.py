"""What a search has tried, how far it is, and what it ends with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lcprune._checks import instance
from lcprune.errors import InputError
from lcprune.graph import BoolArray, IntArray
from lcprune.ranking import Plan
from lcprune.searching._strategy import Candidate

SHARE = 0.05
"""In how many groups finalists differ at least, as a share of those that the best plan removes.

A search ends among the neighbours of its best plan: without this the finalists would be that plan
with a channel more here and one less there.
"""


@dataclass(frozen=True)
class Trial:
    """A finished candidate.

    ``number``, ``keep``, ``share``, ``steps``, ``final``, ``note`` and ``reference`` are the
    candidate's.
    ``loss`` is the fitness, ``inf`` where that was not finite; ``digest`` and ``cost`` are those
    of its plan. ``timing`` is seconds by step (``ask``, ``plan``, ``slim``, ``prepare``,
    ``recalibrate``, ``fitness``), and ``seconds`` those on the clock since the trial before it
    finished, or since the search was begun or gone on with. ``same_as`` is the trial with the same
    plan, share of the images and steps that finished before, whose loss this one has without an
    evaluation. ``asked_after`` is how many trials had finished when this one was begun; none
    where those were all that finished before it, as it always is where one is evaluated at a time.

    Trials are equal where all but what the clock said is; the digest stands for the mask.
    """

    number: int
    keep: BoolArray = field(compare=False)
    loss: float
    digest: str
    cost: Mapping[str, int]
    share: float = 1.0
    final: bool = True
    note: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict, compare=False)
    same_as: int | None = None
    asked_after: int | None = None
    reference: bool = False
    steps: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def candidate(self) -> Candidate:
        """What the strategy had proposed."""
        return Candidate(
            self.number, self.keep, self.share, self.final, self.note, self.reference, self.steps
        )


def best_of(trials: Sequence[Trial]) -> Trial:
    """The final trial with the lowest loss, the earliest of several; any where none is final.

    Of those that were trained before they were measured for the most steps, where any were.
    """
    return min(trials, key=lambda trial: (not trial.final, *_order(trial)))


def _order(trial: Trial) -> tuple[int, float, int]:
    """Ascending: a loss after more steps says more than any after fewer."""
    return -trial.steps, trial.loss, trial.number


@dataclass(frozen=True)
class SearchProgress:
    """Where a search stands after a trial; ``seconds_left`` goes by its latest trials."""

    best: Trial
    done: int
    total: int
    seconds_left: float


@dataclass(frozen=True)
class SearchResult:
    """The best plan of a search.

    ``seconds`` is what the clock said over all sittings, but for what was in flight when one was
    interrupted; ``resumed`` is how many trials came from the journal. ``history`` is every trial
    in the order in which they finished. ``finalists`` are the best plan and, where more were asked
    for, others that are nearly as good, and the strategy's reference, where it tried one: each
    another plan than those before, ascending by loss.
    """

    plan: Plan
    loss: float
    trials: int
    seconds: float
    best: Trial
    resumed: int
    history: tuple[Trial, ...]
    finalists: tuple[Plan, ...]

    def loss_of(self, plan: Plan) -> float:
        """The loss that the search found for a plan, that after the most steps of several.

        ``InputError`` where it tried none such.
        """
        digest = instance("plan", plan, Plan, "a Plan").digest
        own = [trial for trial in self.history if trial.digest == digest and trial.final]
        if not own:
            raise InputError("a plan that the search has not tried, expected one of its finalists")
        return min(own, key=_order).loss


def choose_finalists(trials: Sequence[Trial], family_of: IntArray, count: int) -> list[Trial]:
    """The best trial, then the next best whose plan is another than all before, to ``count``.

    The last of several is the reference, where one was tried and is another plan.

    ``family_of`` is the family of each group, int64 [groups]. Plans are two where their
    ``difference`` is at least ``SHARE`` of the groups that the best plan removes. What is not
    final and losses that are not finite are left out, so that there may be none at all.
    """
    ascending = sorted(
        (trial for trial in trials if trial.final and math.isfinite(trial.loss)),
        key=_order,
    )
    chosen: list[Trial] = []
    seen: set[str] = set()

    def is_another(trial: Trial) -> bool:
        least = SHARE * np.count_nonzero(~chosen[0].keep) if chosen else 0.0
        return all(difference(trial.keep, other.keep, family_of) >= least for other in chosen)

    for trial in ascending:
        if len(chosen) == count:
            break
        if trial.digest not in seen and is_another(trial):
            chosen.append(trial)
        seen.add(trial.digest)
    reference = next((trial for trial in ascending if trial.reference), None)
    if reference is not None and count > 1 and is_another(reference):
        chosen[count - 1 :] = [reference]
    return chosen


def difference(one: BoolArray, other: BoolArray, family_of: IntArray) -> int:
    """How many groups one of two plans keeps and the other doesn't.

    A family in which that is a single group doesn't count: its width is the same but for one.
    """
    by_family = np.bincount(family_of[one != other])
    return int(by_family[by_family > 1].sum())
