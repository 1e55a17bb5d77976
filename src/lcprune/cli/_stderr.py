"""What reaches stderr: lines of ours, and of an error a single one."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lcprune._text import described, one_line, printable
from lcprune.cli._signals import PIPE_CLOSED, PipeClosedError
from lcprune.errors import InputError, LcpruneError, LcpruneWarning

if TYPE_CHECKING:
    import logging

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def tell(line: str) -> None:
    """A line on stderr, where there is one: not with a terminal that is gone or a full disk."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:  # else print takes stdout
            print(printable(line), file=sys.stderr, flush=True)


def told(error: BaseException, *, debug: bool) -> int:
    """Tell of whatever ended a command, in one line, and give the exit code.

    With ``debug`` the traceback comes before that line.
    """
    if isinstance(error, PipeClosedError) or (
        isinstance(error, BrokenPipeError) and _nobody_reads()
    ):
        sys.stdout = io.StringIO()  # else Python tries once more at its end
        return PIPE_CLOSED
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if debug:
        import traceback

        for text in traceback.format_exception(error):
            for line in text.splitlines():
                tell(line)
    tell(f"error: {_reason(error)}")
    return FAILED if _is_check_of_ours(error) else BAD_INPUT


def _is_check_of_ours(error: BaseException) -> bool:
    return isinstance(error, LcpruneError) and not isinstance(error, InputError)


def _reason(error: BaseException) -> str:
    if isinstance(error, LcpruneError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        if error.filename is None and error.errno in _FULL:  # files have a class of their own
            sys.stdout = io.StringIO()
            return f"can't print to stdout: {error.strerror}"
        names = (error.filename, error.filename2)
        return ": ".join([error.strerror, *(one_line(name) for name in names if name is not None)])
    if isinstance(error, MemoryError):
        return "there is not enough memory for that"
    if isinstance(error, SystemExit):
        return f"code of the model or the data ended the program ({one_line(error) or 0})"
    return f"unexpected {described(error)} (--debug shows where)"


def _nobody_reads() -> bool:
    """Whether stdout is a pipe that nobody reads: other pipes break too, to other processes."""
    try:
        import select

        poll = select.poll()  # not on Windows
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return True


@contextmanager
def only_lines(*, debug: bool, program: bool) -> Iterator[None]:
    """Within, warnings come as a line each, and what can't be encoded as escapes.

    What other libraries warn of, log or fail at in the background is told once at the end of a
    block that ends well, and never stands beside an error; with ``debug`` it is told as it comes,
    in its own form. A ``program`` of ours stays so to its end.
    """
    import logging
    import threading
    import warnings

    held: dict[str, None] = {}

    def hold(message: object) -> None:
        held[f"warning: {one_line(message)}"] = None

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, LcpruneWarning):
            tell(f"warning: {message}")
        else:
            hold(message)

    with ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="backslashreplace")
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always", LcpruneWarning)
        if not debug:
            if program:
                os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
            warnings.showwarning = show
            _set(stack, logging, "lastResort", _holding(hold))
            _set(stack, sys, "unraisablehook", lambda of: hold(of.exc_value))
            _set(stack, threading, "excepthook", lambda of: hold(of.exc_value))
        yield
        for line in held:
            tell(line)
        if program:
            stack.pop_all()


def _set(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _holding(hold: Any) -> logging.Handler:
    """Takes what is logged where nobody has set up logging."""
    import logging

    class Holding(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with suppress(Exception):  # a format that doesn't fit
                hold(record.getMessage())

    return Holding(logging.WARNING)
