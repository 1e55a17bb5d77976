from __future__ import annotations

import io

import pytest
from rich.table import Table

from lcprune.cli._progress import OnConsole, Output, PlainProgress, duration


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


def shares(first: float, total: int, parts: int, pace: float) -> list[str]:
    """What a training prints that tells every ``parts``-th part of an epoch after the ``first``."""
    now = [0.0]
    printed: list[str] = []
    advance = PlainProgress("training", total, printed.append, lambda: now[0])
    for part in range(round(first * parts) + 1, total * parts + 1):
        now[0] += pace / parts
        whole = part % parts == 0
        advance(part // parts if whole else part / parts, "loss 0.5" if whole else "9 images/s")
    return printed


def test_an_epoch_is_told_in_shares_with_the_time_left() -> None:
    printed = shares(0, 5, 100, 3600.0)
    assert printed[0] == "training 0.01/5  9 images/s  4:59 h left"
    ends = [line for line in printed if "loss" in line]
    assert [line.split()[1] for line in ends] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert printed[-1] == "training 5/5  loss 0.5"
    counts = [float(line.split()[1].partition("/")[0]) for line in printed]
    assert counts == sorted(counts)
    # Every twentieth, or what takes five minutes.
    assert len(printed) == pytest.approx(5 * 3600 / 300, abs=10)


def test_shares_that_take_no_time_stay_few() -> None:
    assert 20 <= len(shares(0, 60, 50, 1.0)) <= 45


def test_a_training_that_goes_on_in_the_middle_tells_the_time_left() -> None:
    assert shares(3, 5, 4, 100.0)[0] == "training 3.25/5  9 images/s  2:55 min left"


def test_every_step_of_a_short_way_is_told() -> None:
    assert len(lines(1, 5, 1.0)) == 5


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_tells_stage_steps_and_warnings(terminal: bool) -> None:
    stream = io.StringIO()
    reporter = OnConsole(Output(file=stream, force_terminal=terminal, width=100))
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


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_tells_shares(terminal: bool) -> None:
    stream = io.StringIO()
    reporter = OnConsole(Output(file=stream, force_terminal=terminal, width=100))
    with reporter.progress("training", 3) as advance:
        advance(1.5, "loss 0.5  900 images/s")
    assert "1.50/3" in stream.getvalue()
    assert "900 images/s" in stream.getvalue()


FOREIGN = "[/b] [red]x[/red] :smile: \x1b]0;title\x07\x1b[2J\r\n\u202eevil\x9b1m"
SHOWN = r"[/b] [red]x[/red] :smile: \x1b]0;title\x07\x1b[2J\r\n\u202eevil\x9b1m"


@pytest.mark.parametrize("terminal", [True, False])
def test_foreign_text_is_shown_and_not_obeyed(terminal: bool) -> None:
    """Wherever it stands: in a line, a table's title and cells, beside a bar."""
    stream = io.StringIO()
    console = Output(file=stream, force_terminal=terminal, width=200, color_system=None)
    table = Table(FOREIGN, title=FOREIGN)
    table.add_row(FOREIGN)
    console.print(table)
    reporter = OnConsole(console)
    reporter.stage(FOREIGN)
    reporter.warn(FOREIGN)
    with reporter.progress(FOREIGN, 2) as advance:
        advance(1, FOREIGN)
    text = stream.getvalue()
    assert text.count(SHOWN) >= (6 if terminal else 7)
    for obeyed in ("\x1b]", "\x1b[2J", "\x07", "\u202e", "\x9b"):
        assert obeyed not in text
