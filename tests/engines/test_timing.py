"""Times in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import FrozenInstanceError

import pytest
import torch

from lcprune.engines import time_in_turns, with_threads
from lcprune.errors import InputError


def test_calls_take_turns_and_the_order_is_turned_round() -> None:
    made: list[str] = []
    calls: dict[str, Callable[[], object]] = {n: lambda n=n: made.append(n) for n in "abc"}
    times = time_in_turns(calls, batch=4, threads=2, runs=100, seconds=0, warm_up=2)
    assert made[:6] == list("aabbcc")
    assert made[6:12] == list("abccba")
    assert len(made) == 6 + 3 * 100
    assert list(times) == list("abc")
    for timing in times.values():
        assert (timing.batch, timing.threads, timing.runs) == (4, 2, 100)
        assert 0 < timing.least_ms <= timing.tenth_ms <= timing.median_ms
    with pytest.raises(FrozenInstanceError):
        times["a"].runs = 3  # type: ignore[misc]


def test_the_figures_are_those_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which the nth run takes n ms, in an order of its own."""
    lengths = [(37 * n) % 100 + 1 for n in range(100)]
    reading = iter([0.0, *(x for n in lengths for x in (0.0, n / 1000))])
    monkeypatch.setattr(time, "perf_counter", lambda: next(reading, 0.0))
    timing = time_in_turns({"a": int}, batch=1, threads=1, seconds=0, warm_up=0)["a"]
    assert timing.runs == 100
    assert timing.least_ms == pytest.approx(1)
    assert timing.tenth_ms == pytest.approx(10.9)
    assert timing.median_ms == pytest.approx(50.5)


def test_slow_calls_end_earlier_with_ten_runs_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))
    made: list[str] = []
    calls: dict[str, Callable[[], object]] = {n: lambda n=n: made.append(n) for n in "ab"}
    times = time_in_turns(calls, batch=1, threads=1, most_seconds=5)
    assert {name: timing.runs for name, timing in times.items()} == {"a": 10, "b": 10}
    assert len(made) < 40
    quick = time_in_turns({"a": int}, batch=1, threads=1, warm_up=0, most_seconds=10**7)
    assert quick["a"].runs == 100
    with pytest.raises(InputError, match="most_seconds"):
        time_in_turns({"a": int}, batch=1, threads=1, most_seconds=-1)


def test_what_raises_leaves_the_collector_on() -> None:
    calls = iter(range(20))
    with pytest.raises(StopIteration):
        time_in_turns({"a": lambda: next(calls)}, batch=1, threads=1)
    assert gc.isenabled()


def test_wrong_arguments_are_told() -> None:
    right = {"calls": {"a": int}, "batch": 1, "threads": 1}
    for wrong in (
        {"calls": {}},
        {"calls": [int]},
        {"calls": {"a": 3}},
        {"batch": 0},
        {"threads": 0.5},
        {"runs": 99},
        {"warm_up": -1},
        {"seconds": float("nan")},
    ):
        with pytest.raises(InputError, match="expected"):
            time_in_turns(**{**right, **wrong})  # type: ignore[arg-type]


def test_threads_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with suppress(ZeroDivisionError), with_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        _ = 1 / 0
    assert torch.get_num_threads() == before
