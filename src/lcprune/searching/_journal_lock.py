"""Who holds a journal."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from lcprune._factory import one_line
from lcprune._files import PARTIAL
from lcprune.errors import RunError


class JournalLock:
    """Keeps other processes from writing to a journal until it is released.

    The lock is the operating system's, on a file beside the journal that says who holds it, and
    ends with the process, however that ends. ``RunError`` names the holder where there is one.
    Without locks in the system or its files there is none, and all may write.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._file = journal.with_name(f"{PARTIAL}{journal.name}.lock")
        self._descriptor: int | None = None
        try:
            import fcntl
        except ImportError:  # Windows
            return
        while self._descriptor is None:
            descriptor = self._opened()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 1000, 0)
                os.close(descriptor)
                raise RunError(
                    f"journal {journal} is held by {_told(holder)}, expected one search at a time"
                ) from None
            except OSError:  # a file system without locks
                os.close(descriptor)
                return
            # The holder before may have removed the file after it was opened here.
            if self._is_current(descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        }
        with suppress(OSError):  # a full disk: then the lock does not say whose it is
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(who).encode(), 0)

    def release(self) -> None:
        """Let others in; what was released stays so."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            self._file.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def _opened(self) -> int:
        try:
            return os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            why = one_line(OSError(error.strerror or error))
            raise RunError(
                f"journal {self._journal} can't be used ({why}), expected a path that can be"
                " written"
            ) from error

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._file.stat())
        except FileNotFoundError:
            return False


def _told(holder: bytes) -> str:
    """A holder in words, as far as it has written them yet."""
    try:
        who = json.loads(holder)
        return f"process {int(who['pid'])} on {who['host']} since {who['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
