"""Comparing the speed of alternatives on a machine that is not quiet."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence


def relative_times(runs: Sequence[Callable[[], None]], seconds: float) -> list[float]:
    """Time each of ``runs`` relative to the first: the median of the ratios within a round.

    Each runs once to warm up, then all take turns for about ``seconds``, at least once each, so
    that what else the machine does falls on all of them.
    """
    for run in runs:
        run()
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while not times[0] or time.perf_counter() < end:
        for run, row in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            row.append(time.perf_counter() - start)
    return [
        statistics.median(own / first for own, first in zip(row, times[0], strict=True))
        for row in times
    ]


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
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        self._best = min(self._best, seconds)
        return seconds <= max(_SECONDS, _TIMES * self._best)
