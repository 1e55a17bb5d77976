from __future__ import annotations

import io

import pytest
from rich.console import Console

from lcprune.cli._progress import OnConsole, PlainProgress, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (187, "3:07 min"), (3599.7, "1:00 h"), (3725, "1:02 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def lines(first: int, total: int, pace: float) -> list[str]:
    """What a run prints that begins at step ``first`` and takes ``pace`` seconds a step."""
    now = [0.0]
    printed: list[str] = []
    advance = PlainProgress("search", total, printed.append, lambda: now[0])
    for done in range(first, total + 1):
        now[0] += pace
        advance(done, f"best loss {1 / done:.3f}")
    return printed


def test_plain_lines_begin_end_and_stay_few() -> None:
    printed = lines(1, 400, 1.0)
    assert printed[0] == "search 1/400  best loss 1.000  6:39 min left"
    assert printed[-1] == "search 400/400  best loss 0.003"
    assert 15 <= len(printed) <= 25


def test_the_time_left_counts_this_process_only() -> None:
    assert lines(301, 400, 2.0)[0] == "search 301/400  best loss 0.003  3:18 min left"


def test_every_step_of_a_short_way_is_told() -> None:
    assert len(lines(1, 5, 1.0)) == 5


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_tells_stage_steps_and_warnings(terminal: bool) -> None:
    stream = io.StringIO()
    reporter = OnConsole(Console(file=stream, force_terminal=terminal, width=100))
    reporter.stage("base [network]")
    reporter.warn("elsewhere")
    with reporter.progress("search", 3) as advance:
        for done in (1, 2, 3):
            advance(done, f"best loss {done}.25")
    text = stream.getvalue()
    assert "base [network]" in text
    assert "warning: elsewhere" in text
    assert "best loss 3.25" in text
    assert "3/3" in text
    assert ("\x1b" in text) is terminal
