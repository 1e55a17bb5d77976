"""What a model decides by values while it runs, and what it is made to decide otherwise."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import CodeType
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import nn

Place = tuple[str, str, Any]
Site = tuple[Place, ...]
"""What in the code of the model decides: files, functions and positions, up to the module's own."""

Outcome = bool | int | float
Source = Literal["input", "computed", "draw"]
"""What decides: what the model was given, what it has computed of that, or a random draw."""

Mark = TypeVar("Mark")

BETWEEN = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, torch.__file__))
"""Directories of code that lies between a model and its decision."""

CALLS = sys.modules[nn.Module.__module__].__file__
"""The file from which PyTorch calls the forward of every module."""


class TooLongError(Exception):
    """A run in which decisions were changed does not end."""


@dataclass(frozen=True)
class Forced:
    """The outcomes of a decision, in turn and over again; with ``once`` the first time only."""

    values: tuple[Outcome, ...]
    once: bool = False

    def outcome(self, time: int, found: Outcome) -> Outcome:
        """What comes out at this time (from 0 on) in place of what was ``found``."""
        if self.once and time:
            return found
        return self.values[time % len(self.values)]


@dataclass
class Run(Generic[Mark]):
    """What a run has decided: the outcomes at each site, and how many operators it took.

    ``changed`` is what was noted as the first outcome was changed, and none before that.
    """

    met: dict[Site, list[Outcome]] = field(default_factory=dict)
    operators: int = 0
    changed: Mark | None = None


class Decisions(Generic[Mark]):
    """Collects the decisions of runs; ``otherwise`` gives them other outcomes.

    ``decided`` are the modules that decide by what they compute, with the sites where they do.
    Not there is what decides by an input alone, which is checked more often than not. ``open`` are
    the sites whose other outcomes were not all followed.
    """

    def __init__(self) -> None:
        self.decided: dict[str, set[Site]] = {}
        self.open: set[Site] = set()
        self.run = Run[Mark]()
        self._forced: Mapping[Site, Forced] = {}
        self._limit: int | None = None

    def begin(self) -> None:
        """Note what a new run decides."""
        self.run = Run()

    @contextmanager
    def otherwise(self, forced: Mapping[Site, Forced], limit: int) -> Iterator[None]:
        """A context in which decisions have other outcomes, for at most ``limit`` operators."""
        self._forced, self._limit = forced, limit
        try:
            yield
        finally:
            self._forced, self._limit = {}, None

    def step(self) -> None:
        """Note an operator; ``TooLongError`` where there were too many."""
        self.run.operators += 1
        if self._limit is not None and self.run.operators > self._limit:
            raise TooLongError(f"more than {self._limit} operators")

    @property
    def is_too_long(self) -> bool:
        """Whether the run had to end."""
        return self._limit is not None and self.run.operators > self._limit

    def outcome(self, found: Any, module: str, source: Source, mark: Callable[[], Mark]) -> Any:
        """The outcome of a decision that ``module`` makes by what was ``found``.

        ``mark`` is asked for where it is the first of a run that is changed.
        """
        site = _site()
        if source == "computed":
            self.decided.setdefault(module, set()).add(site)
        met = self.run.met.setdefault(site, [])
        forced = self._forced.get(site)
        outcome = found if forced is None else forced.outcome(len(met), found)
        met.append(outcome)
        if outcome != found and self.run.changed is None:
            self.run.changed = mark()
        return outcome

    def hand_on(self, module: str, caller: str) -> None:
        """Note that a module gives its caller a number: by that, the caller decides."""
        if module in self.decided:
            self.decided.setdefault(caller, set()).update(self.decided[module])


def _site() -> Site:
    """The place in code that decides; what PyTorch and the tracer do on the way is left out."""
    found = []
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename != CALLS:
        found.append(_place(frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(place for place in found if not place[0].startswith(BETWEEN)) or tuple(found)


@lru_cache(maxsize=4096)
def _place(code: CodeType, instruction: int) -> Place:
    """A position in source: that of an instruction moves as Python specialises it."""
    positions = next(islice(code.co_positions(), instruction // 2, None), None)
    return code.co_filename, code.co_name, positions
