"""Comparing the speed of alternatives on a machine that is not quiet."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence


def relative_times(runs: Sequence[Callable[[], None]], seconds: float) -> list[float]:
    """Time each of ``runs`` relative to the first: the median of the ratios within a round.

    Each runs once to warm up, then all take turns for about ``seconds``, at least once each, so
    that what else the machine does falls on all of them. Where even the fastest takes longer than
    ``seconds``, what warming up adds is little beside it, and the first time counts.
    """
    first = [_seconds(run) for run in runs]
    if min(first) > seconds:
        return [own / first[0] for own in first]
    end = time.perf_counter() + seconds
    rounds: list[list[float]] = []
    while not rounds or time.perf_counter() < end:
        rounds.append([_seconds(run) for run in runs])
    return [
        statistics.median(times[place] / times[0] for times in rounds) for place in range(len(runs))
    ]


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


FEW = 8
"""Inputs that are enough to see that an alternative is hopeless."""

_TIMES = 5.0
_SECONDS = 1.0


class Pace:
    """Tells after one run each which alternatives are too slow to be measured.

    A processor without instructions for a number format can take a hundred times as long in it;
    to find that out precisely would take minutes.

    Example:
        pace = Pace()
        alternatives = [run for run in alternatives if pace.keeps_up(run)]
    """

    def __init__(self) -> None:
        self._best = math.inf

    def keeps_up(self, run: Callable[[], None]) -> bool:
        """Run it; whether it took at most a second, or five times as long as the fastest so far."""
        seconds = _seconds(run)
        self._best = min(self._best, seconds)
        return seconds <= max(_SECONDS, _TIMES * self._best)
