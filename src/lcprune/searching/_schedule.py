"""Which candidate is evaluated when, and what happens when one finishes."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lcprune._checks import integer
from lcprune.errors import InputError
from lcprune.ranking import Plan, Ranker
from lcprune.searching._executor import Job, Stopwatch, Workers
from lcprune.searching._journal import Ask, Journal
from lcprune.searching._result import SearchProgress, Trial, best_of
from lcprune.searching._strategy import Candidate, Strategy

_RECENT = 32

clock = time.perf_counter
"""Seconds of the wall clock."""

_Measured = tuple[str, float, int]
"""A plan's digest, the share of the images and the steps: what one loss stands for."""


@dataclass(frozen=True, eq=False)
class _Pending:
    """A candidate whose loss is waited for."""

    ask: Ask
    plan: Plan
    digest: str
    planning: Mapping[str, float]

    @property
    def measured(self) -> _Measured:
        return self.digest, self.ask.candidate.share, self.ask.candidate.steps


class Schedule:
    """Keeps ``capacity`` candidates in flight until ``total`` trials have finished.

    Everything that a strategy is asked and told follows from the order in which jobs finish:
    whenever one has, its loss is journalled and told, then that of every candidate in flight with
    the same plan, share of the images and steps, and then as many are asked for as there is
    room. A plan that is known is not evaluated again, nor one that is in pending. So a search that
    goes on from any moment of another goes the same way, as long as the jobs finish in the same
    order.

    ``strategy`` has been asked and told all that ``journal`` holds; ``started`` is what ``clock``
    said when this sitting began.
    """

    def __init__(
        self,
        strategy: Strategy,
        ranker: Ranker,
        journal: Journal,
        total: int,
        capacity: int,
        started: float,
        on_trial: Callable[[Trial, SearchProgress], None] | None,
    ) -> None:
        self._strategy = strategy
        self._ranker = ranker
        self._journal = journal
        self._total = total
        self._capacity = capacity
        self._last = started
        self._on_trial = on_trial
        self.history = list(journal.record.trials)
        self._seen = {
            (trial.digest, trial.share, trial.steps): trial for trial in reversed(self.history)
        }
        self._left = deque(journal.record.in_flight)
        self._pending: dict[int, _Pending] = {}

    @property
    def finished(self) -> bool:
        return len(self.history) >= self._total

    def run(self, workers: Workers) -> None:
        """Begin and finish candidates until all trials are there."""
        while not self.finished:
            ahead = len(self._pending)
            if ahead < self._capacity and len(self.history) + ahead < self._total:
                self._begin(workers)
            else:
                self._finish(workers)

    def _begin(self, workers: Workers) -> None:
        left = bool(self._left)
        watch = Stopwatch()
        with watch.step("ask"):
            ask = self._left.popleft() if left else Ask(self._asked(), len(self.history))
        candidate = ask.candidate
        with watch.step("plan"):
            plan = self._ranker.plan_of(candidate.keep)
            digest = plan.digest
        pending = _Pending(ask, plan, digest, watch.seconds)
        known = self._seen.get(pending.measured)
        if known is not None:
            self._tell(pending, known.loss, {}, known)
            return
        # One at a time there is nothing to write: the next one asked for is the next one told.
        if self._capacity > 1 and not left:
            self._journal.ask(ask)
        twin = any(other.measured == pending.measured for other in self._pending.values())
        self._pending[candidate.number] = pending
        if not twin:
            workers.submit(Job(candidate.number, plan, digest, candidate.share, candidate.steps))

    def _asked(self) -> Candidate:
        """The strategy's next candidate, as the journal would give it back.

        Raises ``InputError`` for one that can't be tried.
        """
        candidate = self._strategy.ask()
        expected = len(self.history) + len(self._pending)
        try:
            if candidate.number != expected:
                raise InputError(f"number {candidate.number}, expected {expected}")
            if not 0 < candidate.share <= 1:
                raise InputError(f"share of {candidate.share}, expected more than 0, at most 1")
            integer("steps", candidate.steps, 0)
            candidate = replace(
                candidate, keep=np.array(candidate.keep), note=_plain(candidate.note)
            )
            if candidate.final:
                self._ranker.check(candidate.keep)
        except InputError as error:
            name = self._strategy.settings.get("name")
            raise InputError(f"candidate {expected} of strategy {name}: {error}") from error
        return candidate

    def _finish(self, workers: Workers) -> None:
        evaluation = workers.next()
        pending = self._pending.pop(evaluation.number)
        loss = evaluation.loss if math.isfinite(evaluation.loss) else math.inf
        trial = self._tell(pending, loss, evaluation.timing, None)
        twins = [n for n, other in self._pending.items() if other.measured == pending.measured]
        for number in sorted(twins):
            self._tell(self._pending.pop(number), loss, {}, trial)

    def _tell(
        self, pending: _Pending, loss: float, timing: Mapping[str, float], known: Trial | None
    ) -> Trial:
        candidate, after = pending.ask.candidate, pending.ask.after
        now = clock()
        trial = Trial(
            number=candidate.number,
            keep=candidate.keep,
            loss=loss,
            digest=pending.digest,
            cost=pending.plan.cost,
            share=candidate.share,
            final=candidate.final,
            note=candidate.note,
            timing={**pending.planning, **timing},
            same_as=None if known is None else known.number,
            asked_after=None if after == len(self.history) else after,
            reference=candidate.reference,
            steps=candidate.steps,
            seconds=now - self._last,
        )
        self._last = now
        self._journal.commit(trial)
        self._strategy.tell(candidate, loss)
        self.history.append(trial)
        self._seen.setdefault(pending.measured, trial)
        if self._on_trial is not None:
            self._on_trial(trial, self._progress())
        return trial

    def _progress(self) -> SearchProgress:
        history, total = self.history, self._total
        recent = history[-_RECENT:]
        pace = sum(trial.seconds for trial in recent) / len(recent)
        return SearchProgress(best_of(history), len(history), total, pace * (total - len(history)))


def _plain(note: Mapping[str, Any]) -> dict[str, Any]:
    """A note as JSON gives it back; ``InputError`` where it is none."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(note), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"its note is not JSON: {error}") from error
    return plain
