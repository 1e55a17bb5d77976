"""Comparing the speed of alternatives on a machine that is not quiet."""

from __future__ import annotations

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
