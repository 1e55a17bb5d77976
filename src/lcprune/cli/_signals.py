"""How a run ends when it is asked to: by Ctrl-C, SIGTERM, SIGHUP, or a pipe that is closed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # to type checkers it is true
if TYPE_CHECKING:
    from types import FrameType

    from lcprune.runs import Advance, Reporter

PIPE_CLOSED = 128 + 13
"""What a shell gives a process that ended by SIGPIPE."""
_ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_FINISHED_FIRST = "search"
"""The stage whose step in flight is finished first: a trial is whole or lost, and takes seconds.
A training goes back to its last checkpoint wherever it is left, so it is left at once."""


class Stopped(KeyboardInterrupt):
    """Raised where a run ends because a signal asked it to."""


class PipeClosedError(Exception):
    """Raised where nobody reads any more what is printed, as in ``lcprune … | head``."""


@contextmanager
def leaving_at_once(*, program: bool) -> Iterator[None]:
    """Within, Ctrl-C ends the process without a word, if the ``program`` is ours: nothing is begun.

    An exception would be raised in the middle of an import, which may swallow it, or a callback,
    where Python would print it. So it stays to the end of the process.
    """
    if (
        program
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler)
    ):
        signal.signal(signal.SIGINT, _leave)
    yield


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


_DEFAULT = (signal.SIG_DFL, signal.default_int_handler, _leave)


class Stop:
    """Whether a signal has asked the run to end, and which; ``number`` is none where none has."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._process = os.getpid()
        self._waiting = False

    @property
    def exit_code(self) -> int:
        """What a shell gives a process that ended by the signal; 130 for Ctrl-C."""
        return 128 + (signal.SIGINT if self.number is None else self.number)

    def reporter(self, inner: Reporter) -> Reporter:
        """A reporter that ends the run between two steps, where that is what is waited for."""
        return _Stopping(inner, self)

    @contextmanager
    def finishing_steps(self) -> Iterator[None]:
        """Within, the first signal ends the run at the next ``check`` and not at once."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def check(self) -> None:
        """``Stopped`` where the run was asked to end."""
        if self.number is not None:
            raise Stopped

    def ask(self, number: int, _: FrameType | None) -> None:
        """The handler of the signals."""
        if os.getpid() != self._process:
            _in_child(number)
            return
        again = self.number is not None
        self.number = self.number or number
        if again:  # the third one ends the process without a word
            signal.signal(number, signal.SIG_DFL)
        if again or not self._waiting or number == signal.SIGINT:
            raise Stopped


@contextmanager
def ending_on_signals() -> Iterator[Stop]:
    """Within, Ctrl-C, SIGTERM and SIGHUP end a run by ``Stopped``, the latter two after a trial.

    A second one ends it at once. What is ignored on entry stays so (``nohup``); outside the main
    thread, where Python has no signals, nothing changes. Afterwards all is as before.
    """
    stop = Stop()
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                if signal.getsignal(number) in _DEFAULT:
                    before[number] = signal.signal(number, stop.ask)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_child(number: int) -> None:
    """What a child does that was forked with this handler, such as one that reads images."""
    # Those of a terminal reach every process of it; the first one ends the others.
    if number not in (signal.SIGINT, getattr(signal, "SIGHUP", None)):
        signal.signal(number, signal.SIG_DFL)
        with suppress(OSError):
            os.kill(os.getpid(), number)


class _Stopping:
    def __init__(self, inner: Reporter, stop: Stop) -> None:
        self._inner = inner
        self._stop = stop

    def stage(self, text: str) -> None:
        self._stop.check()  # where something has swallowed its exception
        self._inner.stage(text)

    def warn(self, text: str) -> None:
        self._inner.warn(text)

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Advance]:
        with self._inner.progress(name, total) as advance:

            def checked(done: float, text: str) -> None:
                # First: the end of a terminal leaves nothing to tell on.
                self._stop.check()
                advance(done, text)

            if name != _FINISHED_FIRST:
                yield checked
                return
            with self._stop.finishing_steps():
                yield checked
            self._stop.check()
