"""The other ways through a model: what it decides by values comes out otherwise."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

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
NUMBERS = (0.0, 1.0, -1e4, 1e4)
"""What is tried in place of an integer (from 0 on), and of another number."""

JOINT = 6
BARREN = 2
"""The most runs in which all decisions change; after how many that lead to nothing new it ends."""


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
        self._limit = 0
        self._is_new = False

    def follow(self, runs: Sequence[tuple[Inputs, Run[tuple[Mark, int]]]]) -> None:
        """Follow the other ways from ``runs``, which are those of the examples."""
        self._limit = LONGEST * max((run.operators for _, run in runs), default=0) + 100
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
            self._change_truth(meeting)
        elif kind is int:
            self._change_integer(meeting)
        else:
            for number in NUMBERS:
                self._try(meeting, Forced((number,)))
            self._ending[meeting.site] = False

    def _change_truth(self, meeting: Meeting) -> None:
        """Every time the same; then, where it is met several times, each time alone."""
        site, outcomes = meeting.site, set(meeting.outcomes)
        times: dict[bool, int] = {}
        for value in (True, False):
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
        longer = times[True] > times[False]
        if times[True] == times[False] > 1:  # it leaves out, or puts in, what it stands before
            self._try(meeting, Forced((True, False)))
            self._try(meeting, Forced((False, True)))
            return
        barren = 0
        for count in range(1, max(times.values())):  # it ends what goes on otherwise
            self._try(meeting, Forced((longer,) * count + (not longer,)))
            barren = 0 if self._is_new else barren + 1
            if barren == BARREN:
                return

    def _change_integer(self, meeting: Meeting) -> None:
        """From 0 on, as the position of a module, which may be another one the next time."""
        barren = failed = 0
        for value in range(INTEGERS):
            if meeting.outcomes == (value,):
                continue
            ended = self._try(meeting, Forced((value,)))
            if ended is Ended.RAN and self._is_new and len(meeting.outcomes) > 1:
                failed = barren = 0
                self._try(meeting, Forced((value, value + 1)))
                self._try(meeting, Forced((value + 1, value)))
            elif ended is Ended.RAN:
                failed, barren = 0, 0 if self._is_new else barren + 1
            else:
                failed += 1
                self.sure &= ended is not Ended.FAILED or value > max(meeting.outcomes)
                if failed > BARREN or value > max(meeting.outcomes):
                    self._ending[meeting.site] = value > max(meeting.outcomes)
                    return
            if barren >= BARREN and not self._unreached():
                break
        self._ending[meeting.site] = False

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
        draws, barren = random.Random(0), 0
        for number in range(JOINT):
            forced = {
                site: Forced(tuple(draws.choice(outcomes) for _ in range(61)))
                for site, outcomes in sites.items()
            }
            ended = self._run_otherwise(inputs[number % len(inputs)], forced)
            barren = barren + 1 if ended is not Ended.RAN or not self._is_new else 0
            if barren >= BARREN + 2 * self._unreached():
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
