"""The other ways through a model: what it decides by values comes out otherwise."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import product
from math import prod

import numpy as np

from lcprune.errors import ModelError
from lcprune.tracing._decisions import Decisions, Forced, Outcome, Run, Site
from lcprune.tracing._flow import LabelFlow, Mark
from lcprune.tracing._inputs import Inputs

MOST_SITES = 16
MOST_RUNS = 48
"""The most places in code, and the most runs, of which the other ways are followed in a mode."""

LONGEST = 10
"""How many times as many operators as the example a run may take."""

INTEGERS = 16
NUMBERS = ((1.0, 0.0), (1e4, -1e4))
"""What is tried in place of an integer (from 0 on), and of another number."""

FEW, MANY = 8, 12
"""How many combinations of outcomes are all run, and how many of more are."""

BARREN = 2
"""After how many runs that lead to nothing new no further ones are tried, at the least."""

PATIENCE = 5000
"""The same in operators: small networks are tried longer."""


class Ended(Enum):
    """How a run ended: well, in a check of what was decided, elsewhere, or not at all."""

    RAN = auto()
    CHECK = auto()
    FAILED = auto()
    TOO_LONG = auto()


@dataclass(frozen=True)
class Meeting:
    """A site, the outcomes there, and the run that met it: its inputs and what was changed."""

    site: Site
    outcomes: tuple[Outcome, ...]
    inputs: Inputs
    forced: Mapping[Site, Forced]


class Extent:
    """How much is known of a model's channels: it tells whether a run led to anything new."""

    def __init__(self, flow: LabelFlow) -> None:
        self._flow = flow
        self._count = flow.labels.count  # labels that later runs make say nothing of themselves
        self._known = self._measured()

    def _measured(self) -> tuple[int, int, int]:
        flow = self._flow
        component = flow.labels.components()
        channels = int(component[: self._count].max(initial=-1)) + 1
        pinned = flow.labels.pinned_channels(component)
        return channels, int(np.count_nonzero(pinned < channels)), len(flow.running.entered)

    def grows(self) -> bool:
        """Whether anything is new since the last time."""
        before, self._known = self._known, self._measured()
        return self._known != before


def patience(operators: int) -> int:
    """After how many runs that lead to nothing new a network of so many operators is left."""
    return max(BARREN, min(INTEGERS, PATIENCE // max(1, operators)))


def combinations(sites: Mapping[Site, Sequence[Outcome]]) -> Iterator[dict[Site, Forced]]:
    """Outcomes at all sites: every combination of few, of more some by chance, in turn."""
    if prod(map(len, sites.values())) <= FEW:
        for outcomes in product(*sites.values()):
            yield {s: Forced((outcome,)) for s, outcome in zip(sites, outcomes, strict=True)}
        return
    draws = random.Random(0)
    for _ in range(MANY):
        yield {s: Forced(tuple(draws.choices(known, k=61))) for s, known in sites.items()}


class Explorer:
    """Runs a model again with other outcomes of its decisions, under one flow.

    ``run`` runs it on inputs, ``unreached`` is whether there is a module that never ran. Whatever
    other ways join is joined. A run that raises says nothing of what comes after; where it raises
    at once, its outcome is refused by a check, and isn't tried again. ``sure`` is whether no run
    raised elsewhere: its values mean nothing, so on other data it may not.
    """

    def __init__(
        self,
        flow: LabelFlow,
        run: Callable[[Inputs], None],
        unreached: Callable[[], bool],
    ) -> None:
        self.sure = True
        self._flow = flow
        self._decisions: Decisions[tuple[Mark, int]] = flow.decisions
        self._run = run
        self._unreached = unreached
        self._extent = Extent(flow)
        self._queue = deque[Meeting]()
        self._known: dict[Site, set[Outcome]] = {}
        self._telling: dict[Site, None] = {}
        self._checks: dict[Site, Forced] = {}
        self._ending: dict[Site, bool] = {}
        self._left = MOST_RUNS
        self._limit, self._patience = 0, BARREN
        self._is_new = False

    def follow(self, runs: Sequence[tuple[Inputs, Run[tuple[Mark, int]]]]) -> None:
        """Follow the other ways from ``runs``, which are those of the examples."""
        operators = max(run.operators for _, run in runs)
        self._limit = LONGEST * operators + 100
        self._patience = patience(operators)
        seen: dict[Site, set[Outcome]] = {}
        for _, run in runs:
            for site, outcomes in run.met.items():
                seen.setdefault(site, set()).update(outcomes)
        for inputs, run in runs:
            once = {site for site, outcomes in run.met.items() if len(outcomes) == 1}
            both = {site for site in once if seen[site] == {False, True}}
            self._known |= {s: seen[s] for s in both if isinstance(run.met[s][0], bool)}
            self._meet(inputs, run, {})
        while self._queue:
            self._change(self._queue.popleft())
        self._change_all([inputs for inputs, _ in runs])
        if self._unreached():
            self._decisions.open |= {site for site, ends in self._ending.items() if not ends}

    def _meet(
        self, inputs: Inputs, run: Run[tuple[Mark, int]], forced: Mapping[Site, Forced]
    ) -> None:
        for site, outcomes in run.met.items():
            if site not in self._known:
                self._known[site] = set(outcomes)
                if len(self._known) > MOST_SITES:
                    self._decisions.open.add(site)
                else:
                    self._queue.append(Meeting(site, tuple(outcomes), inputs, forced))

    def _change(self, meeting: Meeting) -> None:
        kind = type(meeting.outcomes[0])
        if kind is bool:
            self._change_between(meeting, True, False)
        elif kind is int:
            self._change_integer(meeting)
        else:
            self._ending[meeting.site] = False
            for high, low in NUMBERS:
                self._change_between(meeting, high, low)

    def _change_between(self, meeting: Meeting, high: Outcome, low: Outcome) -> None:
        """Every time the same; then, where it is met several times, each time alone."""
        site, outcomes = meeting.site, set(meeting.outcomes)
        times: dict[Outcome, int] = {}
        for value in (high, low):
            if outcomes == {value}:
                times[value] = len(meeting.outcomes)
                continue
            ended = self._try(meeting, Forced((value,)))
            if ended is Ended.CHECK:
                if len(outcomes) == 1:
                    self._checks[site] = Forced(meeting.outcomes[:1])
                return
            times[value] = len(self._decisions.run.met.get(site, ()))
            self.sure &= ended is not Ended.FAILED
            if ended is Ended.TOO_LONG:
                ended = self._try(meeting, Forced((value,), once=True))
            if ended is Ended.TOO_LONG:
                self._decisions.open.add(site)
                return
        if times[high] == times[low] > 1:  # it leaves out, or puts in, what it stands before
            self._try(meeting, Forced((high, low)))
            self._try(meeting, Forced((low, high)))
            return
        ends, goes_on = (low, high) if times[high] > times[low] else (high, low)
        barren = 0
        for count in range(1, times[goes_on]):
            self._try(meeting, Forced((goes_on,) * count + (ends,)))
            barren = 0 if self._is_new else barren + 1
            if barren == BARREN:
                return

    def _change_integer(self, meeting: Meeting) -> None:
        """From 0 on, as the position of a module; where it is met several times, also by turns."""
        site, last = meeting.site, max(meeting.outcomes)
        ran: list[Outcome] = []
        barren = failed = 0
        for value in range(INTEGERS):
            if meeting.outcomes == (value,):
                continue
            ended = self._try(meeting, Forced((value,)))
            if ended is Ended.RAN:
                failed, barren = 0, 0 if self._is_new else barren + 1
                if len(meeting.outcomes) > 1 and site in self._telling and ran:
                    self._try(meeting, Forced((value, ran[-1])))
                    self._try(meeting, Forced((ran[-1], value)))
                ran.append(value)
            else:
                failed += 1
                self.sure &= ended is not Ended.FAILED or value > last
                if failed > BARREN or value > last:
                    self._ending[site] = value > last
                    return
            if barren >= self._patience and not self._unreached():
                break
        self._ending[site] = False

    def _change_all(self, inputs: Sequence[Inputs]) -> None:
        """Several decisions at a time, by chance: what two of them lead to together.

        Those are left out that alone lead to nothing new, unless a module was not reached.
        """
        chosen = self._known.keys() if self._unreached() else self._telling
        sites = {
            site: sorted(self._known[site])
            for site in chosen
            if len(self._known[site]) > 1 and site not in self._checks
        }
        if len(sites) < 2:
            return
        barren = 0
        for number, forced in enumerate(combinations(sites)):
            ended = self._run_otherwise(inputs[number % len(inputs)], forced)
            barren = barren + 1 if ended is not Ended.RAN or not self._is_new else 0
            if barren >= BARREN and not self._unreached():
                return

    def _try(self, meeting: Meeting, change: Forced) -> Ended:
        """A run in which one more decision is changed; what it meets is changed later."""
        forced = {**meeting.forced, meeting.site: change}
        ended = self._run_otherwise(meeting.inputs, forced)
        if ended is Ended.RAN:
            self._known[meeting.site].update(change.values)
        if self._is_new:
            self._telling[meeting.site] = None
        if ended is not Ended.CHECK:
            self._meet(meeting.inputs, self._decisions.run, forced)
        return ended

    def _run_otherwise(self, inputs: Inputs, forced: Mapping[Site, Forced]) -> Ended:
        self._is_new = False
        if not self._left:
            return Ended.TOO_LONG
        self._left -= 1
        with self._decisions.otherwise({**self._checks, **forced}, self._limit):
            ended = self._ended(inputs)
        self._is_new = self._extent.grows()
        return ended

    def _ended(self, inputs: Inputs) -> Ended:
        try:
            self._run(inputs)
        except ModelError:
            if self._decisions.is_too_long:
                return Ended.TOO_LONG
            changed = self._decisions.run.changed
            if changed is not None and changed[1] == self._flow.running.entries:
                self._flow.reset(changed[0])
                return Ended.CHECK
            return Ended.FAILED
        return Ended.RAN
