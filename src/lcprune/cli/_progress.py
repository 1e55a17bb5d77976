"""What a run tells on a terminal or in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from lcprune._text import printable
from lcprune.cli._signals import PipeClosedError
from lcprune.runs import Advance

_LINES = 20
_SILENCE = 300.0
"""Seconds after which a line is due anyway."""


class Output(Console):
    """A console for text that is not ours too: it is shown as it is, without markup or escapes.

    It says so when nobody reads it any more.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(**how, markup=False, highlight=False, emoji=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """Called by rich for every text, also in the cells and the title of a table."""
        return super().render_str(printable(text), **how)

    def on_broken_pipe(self) -> None:
        """Called by rich in place of the system's own error."""
        raise PipeClosedError


class OnConsole:
    """Bars on a terminal, plain lines anywhere else; warnings go to a console of their own."""

    def __init__(self, console: Output, warnings: Output | None = None) -> None:
        self._console = console
        self._warnings = warnings or console

    def stage(self, text: str) -> None:
        self._print(text)

    def warn(self, text: str) -> None:
        self._warnings.print(f"warning: {text}", soft_wrap=True)

    def progress(self, name: str, total: int) -> AbstractContextManager[Advance]:
        return self._bar(name, total) if self._console.is_terminal else self._lines(name, total)

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Advance]:
        columns = (
            *(TextColumn("{task.description}", markup=False), BarColumn()),
            TextColumn("{task.fields[done]}", markup=False),
            TextColumn("{task.fields[text]}", markup=False),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as bars:
            task = bars.add_task(printable(name), total=total, done=steps(0, total), text="")
            yield lambda done, text: bars.update(
                task, completed=done, done=steps(done, total), text=printable(text)
            )

    @contextmanager
    def _lines(self, name: str, total: int) -> Iterator[Advance]:
        yield PlainProgress(name, total, self._print, time.monotonic)


class PlainProgress:
    """Prints a line at the first step, the last, and about twenty times between.

    At least once in five minutes, though, as far as it is called. A step that takes long, such as
    an epoch, may be told in shares: 2.35 of 5; its end has its own line.
    """

    def __init__(
        self, name: str, total: int, print_line: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._name = name
        self._total = total
        self._print = print_line
        self._clock = clock
        self._began = clock()
        self._first: float | None = None
        self._printed = self._printed_whole = self._printed_at = -math.inf

    def __call__(self, done: float, text: str) -> None:
        whole = done == int(done)
        if self._first is None:  # a run that goes on begins in the middle, after a whole step
            self._first = math.ceil(done) - 1
        ahead = done - (self._printed_whole if whole else self._printed)
        silent = self._clock() - self._printed_at
        if ahead >= self._total / _LINES or silent >= _SILENCE or done >= self._total:
            self._printed, self._printed_at = done, self._clock()
            self._printed_whole = done if whole else self._printed_whole
            line = f"{self._name} {steps(done, self._total)}  {text}  {self._left(done)}"
            self._print(line.rstrip())

    def _left(self, done: float) -> str:
        assert self._first is not None
        ahead = done - self._first
        if done >= self._total or ahead <= 0:
            return ""
        per_step = (self._clock() - self._began) / ahead
        return f"{duration(per_step * (self._total - done))} left"


def steps(done: float, total: int) -> str:
    """How many of how many: 3/5, 2.35/5."""
    return f"{done:.0f}/{total}" if done == int(done) else f"{done:.2f}/{total}"


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3:07 min, 1:02 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
