"""One process at a time."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lcprune._files import check_own, read_whole
from lcprune.errors import InputError, RunError

LOCK = ".lock"
"""How the names of lock files end."""

_PATIENCE = 0.2
"""Seconds: whoever only looks, or is just leaving, holds a lock for less."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
_MOST = 1000


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` within the block; the file is gone afterwards.

    The lock is the operating system's. It ends with the process, however that ends, and a forked
    child does not keep it. The file says who holds it. On a file system without locks there is
    none, and all may go on.

    ``RunError`` where another process holds it: "``what`` is held by process N on HOST, since …";
    where the file can't be written, or is a link or anything else but a file.
    """
    lock = _lock(path)
    try:
        lock.acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 10)
    except Timeout:
        raise _held(path, what) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise RunError(f"can't write {path}: {error.strerror or error}") from error
        yield
        return
    try:
        _introduce(path)
        yield
    finally:
        # While it is still held: whoever has opened it meanwhile sees that its name is gone.
        if lock.is_locked:  # not so in a forked child
            with suppress(OSError):
                path.unlink(missing_ok=True)
            lock.release()


def check_unlocked(path: Path, what: str) -> None:
    """``RunError``, as of ``locked``, where a process holds the lock at this moment.

    Nothing is created.
    """
    try:
        lock = _lock(path)
        if not path.exists():
            return
        lock.acquire(blocking=False)
    except Timeout:
        raise _held(path, what) from None
    except OSError:  # no permission to write here: who wants to write is told then
        return
    lock.release()


def _lock(path: Path) -> FileLock:
    check_own(path)
    return FileLock(path, fallback_to_soft=False, thread_local=False)


def _introduce(path: Path) -> None:
    """Say who this is; on a full disk it stays unsaid."""
    who = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "wb") as file:
            if os.fstat(descriptor).st_nlink == 1:  # else it has another name, as somebody's file
                file.truncate()
                file.write(json.dumps(who).encode())


def _held(path: Path, what: str) -> RunError:
    return RunError(f"{what} is held by {_holder(path)}")


def _holder(path: Path) -> str:
    """Who holds the lock, as far as can be said."""
    try:
        who: Any = json.loads(read_whole(path, limit=_MOST))
        pid, host, since = int(who["pid"]), str(who["host"]), str(who["since"])
    except (InputError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "another process"
    if host == socket.gethostname() and not _is_alive(pid):
        return "another process"  # a former one wrote that, and this one has not written yet
    return f"process {pid} on {host}, since {since}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        return True
    except (OSError, OverflowError):
        return False
    return True
