"""What a run tells on a terminal or in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lcprune.runs import Advance

_LINES = 20


class OnConsole:
    """Bars on a terminal, plain lines anywhere else; warnings go to a console of their own."""

    def __init__(self, console: Console, warnings: Console | None = None) -> None:
        self._console = console
        self._warnings = warnings or console

    def stage(self, text: str) -> None:
        self._print(text)

    def warn(self, text: str) -> None:
        self._warnings.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)

    def progress(self, name: str, total: int) -> AbstractContextManager[Advance]:
        return self._bar(name, total) if self._console.is_terminal else self._lines(name, total)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=total, text="")
            yield lambda done, text: bars.update(task, completed=done, text=text)

    @contextmanager
    def _lines(self, name: str, total: int) -> Iterator[Advance]:
        yield PlainProgress(name, total, self._print, time.monotonic)


class PlainProgress:
    """Prints a line at the first step, the last, and about twenty times between."""

    def __init__(
        self, name: str, total: int, print_line: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._name = name
        self._total = total
        self._print = print_line
        self._clock = clock
        self._began = clock()
        self._first: float | None = None
        self._printed = 0.0

    def __call__(self, done: float, text: str) -> None:
        if self._first is None:  # a run that goes on begins in the middle
            self._first = done - 1
        share = self._total / _LINES
        if done == self._total or not self._printed or done - self._printed >= share:
            self._printed = done
            self._print(f"{self._name} {done:g}/{self._total}  {text}  {self._left(done)}".rstrip())

    def _left(self, done: float) -> str:
        assert self._first is not None
        steps = done - self._first
        if done >= self._total or steps <= 0:
            return ""
        per_step = (self._clock() - self._began) / steps
        return f"{duration(per_step * (self._total - done))} left"


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3:07 min, 1:02 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
