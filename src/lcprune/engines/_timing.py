"""How long calls take, in turns, so that what else the machine does falls on all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from lcprune._checks import function, integer, number, refused

LEAST_RUNS = 100
FEWEST_RUNS = 10


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a call with ``batch`` samples on ``threads`` threads, over ``runs`` calls.

    On a machine that does other things as well, the least time and the tenth percentile are what
    can be told again; the median is the others' too.
    """

    batch: int
    threads: int
    runs: int
    least_ms: float
    tenth_ms: float
    median_ms: float


def time_in_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    batch: int,
    threads: int,
    runs: int = LEAST_RUNS,
    seconds: float = 0.5,
    warm_up: int = 10,
    most_seconds: float | None = None,
) -> dict[str, Timing]:
    """The times of calls by name, which take turns; the order is turned round after each round.

    Each is called ``warm_up`` times first, then at least ``runs`` times (100 or more) and on until
    it took ``seconds`` on average. ``batch`` and ``threads`` are what the calls do, for the record.
    After ``most_seconds`` in all it ends earlier, with 10 runs of each at least.
    """
    if not isinstance(calls, Mapping) or not calls:
        raise refused("calls", calls, "one or more functions by name")
    for name, call in calls.items():
        function(f"the call {name}", call)
    integer("batch", batch, 1)
    integer("threads", threads, 1)
    integer("runs", runs, LEAST_RUNS)
    integer("warm_up", warm_up, 0)
    number("seconds", seconds, 0)
    end = None
    if most_seconds is not None:
        end = time.perf_counter() + number("most_seconds", most_seconds, 0)
    for call in calls.values():
        for done in range(warm_up):
            if done and _is_past(end):
                break
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls.items())
    collects = gc.isenabled()
    gc.disable()  # else it falls on whoever's turn it is
    try:
        began = time.perf_counter()
        while _rounds(times) < runs or time.perf_counter() - began < seconds * len(calls):
            if _rounds(times) >= FEWEST_RUNS and _is_past(end):
                break
            for name, call in order:
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
            order.reverse()
    finally:
        if collects:
            gc.enable()
    return {
        name: Timing(
            batch=batch,
            threads=threads,
            runs=len(own),
            least_ms=1000 * min(own),
            tenth_ms=1000 * float(np.percentile(own, 10)),
            median_ms=1000 * float(np.median(own)),
        )
        for name, own in times.items()
    }


def _is_past(end: float | None) -> bool:
    return end is not None and time.perf_counter() > end


def _rounds(times: Mapping[str, list[float]]) -> int:
    return min(len(own) for own in times.values())


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Within, PyTorch uses so many threads."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
