"""One process at a time in a run directory."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcprune._files import PARTIAL, make_directory
from lcprune.artifact._layout import RUN
from lcprune.errors import RunError

_LOCK = ".lock"
HOLDER = f"{PARTIAL}run{_LOCK}"
"""The file in a run directory that says who is at work there; the lock itself is the system's."""

_MOST = 1000
_held: set[int] = set()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Make a run directory and keep other processes out.

    ``RunError`` where one is at work there, with its number, its host and since when. The lock is
    the operating system's and ends with the process, however that ends: what it left behind to
    say who it was is not asked then. Files that it had not finished are removed from a run.
    """
    make_directory(directory)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise RunError(f"can't read {directory}: {error.strerror or error}") from error
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _at_work(directory) from None
        except OSError:  # a file system without locks
            yield
            return
        _introduce(directory)
        if (directory / RUN).is_file():
            with suppress(OSError):
                remove_leftovers(directory)
        try:
            yield
        finally:
            with suppress(OSError):
                (directory / HOLDER).unlink(missing_ok=True)
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def check_unlocked(directory: Path) -> None:
    """``RunError`` where a process is at work in ``directory`` at this moment."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # nothing there, or nothing that could be locked
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _at_work(directory) from None
    except OSError:  # a file system without locks
        return
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Remove what processes that were killed had begun to write; only for who holds the lock."""
    for path in (*directory.glob(f"{PARTIAL}*"), *directory.glob(".*checkpoint.pt.part")):
        if path.suffix != _LOCK:
            path.unlink(missing_ok=True)


def _introduce(directory: Path) -> None:
    """Say who this is; on a full disk it stays unsaid."""
    who = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    with suppress(OSError):
        (directory / HOLDER).write_text(json.dumps(who), encoding="utf-8")


def _at_work(directory: Path) -> RunError:
    return RunError(f"another process is at work in {directory}{_holder(directory)}")


def _holder(directory: Path) -> str:
    """Who holds the lock, as far as can be said."""
    try:
        with (directory / HOLDER).open("rb") as file:
            who: Any = json.loads(file.read(_MOST))
        pid, host, since = int(who["pid"]), str(who["host"]), str(who["since"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    if host == socket.gethostname() and not _is_alive(pid):
        return ""  # left by an earlier one, and the present one has not written its own yet
    return f": process {pid} on {host}, since {since}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        return True
    except (OSError, OverflowError):
        return False
    return True


def _let_go() -> None:
    # A forked child, such as one that reads images, has the descriptor too and would keep the
    # lock for as long as it outlives its parent.
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
