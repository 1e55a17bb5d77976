"""What a search has tried, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lcprune.errors import InputError
from lcprune.ranking import Plan
from lcprune.searching._strategy import PROBE, Candidate


@dataclass(frozen=True)
class Trial:
    """A finished candidate.

    ``loss`` is the fitness, ``inf`` where that was not finite; ``digest`` and ``cost`` are those
    of its plan. ``timing`` is seconds by step (``ask``, ``plan``, ``slim``, ``prepare``,
    ``recalibrate``, ``fitness``). ``same_as`` is the trial with the same plan and the same share
    of the images that finished before, whose loss this one has without an evaluation.
    ``asked_after`` is how many trials had finished when this one was begun; none where those were
    all that finished before it, as it always is where one is evaluated at a time.
    """

    number: int
    latent: tuple[tuple[float, ...], ...]
    origin: str
    parent: int | None
    loss: float
    digest: str
    cost: Mapping[str, int]
    timing: Mapping[str, float] = field(default_factory=dict, compare=False)
    same_as: int | None = None
    asked_after: int | None = None

    @property
    def seconds(self) -> float:
        """How long the trial took."""
        return sum(self.timing.values())

    @property
    def share(self) -> float:
        """The share of the images that ``loss`` was measured on."""
        return self.candidate().share

    @property
    def eligible(self) -> bool:
        """Whether it may be the result, as a probe may not."""
        return self.origin != PROBE

    def candidate(self) -> Candidate:
        """What the strategy had proposed."""
        latent = np.array(self.latent, dtype=np.float64)
        return Candidate(self.number, latent, self.origin, self.parent)


def best_of(trials: Sequence[Trial]) -> Trial:
    """The eligible trial with the lowest loss, the earliest of several; any where none is."""
    return min(trials, key=lambda trial: (not trial.eligible, trial.loss, trial.number))


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

    ``seconds`` adds up all trials, those from before an interruption included, so that several
    workers make more of them than the clock; ``resumed`` is how many trials came from the
    journal. ``history`` is every trial in the order in which they finished. ``finalists`` are
    the best plan and, where more were asked for, others that are nearly as good, and the uniform
    width, where it was tried: ascending by loss, each another plan than those before.
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
        """The loss that the search found for a plan; ``InputError`` where it tried none such."""
        digest = plan.digest
        for trial in self.history:
            if trial.digest == digest and trial.eligible:
                return trial.loss
        raise InputError("a plan that the search has not tried, expected one of its finalists")
