"""Every point at which a process changes files, and what may happen to it there.

Python's own writes go through functions that are replaced here. SQLite's go through the table of
system calls that it keeps for tests (``sqlite3_vfs.xSetSystemCall``), all but its fsync, which
changes nothing that another process could see. For Linux.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Point:
    """One change to come: its number, from 0, what is done, and to which file."""

    number: int
    action: str
    file: str

    @property
    def kind(self) -> str:
        """The action and the file, without what differs from process to process."""
        return f"{self.action} {self.file}"

    @property
    def carries(self) -> bool:
        """Whether content is written, of which there may be a part."""
        return self.action in ("write", "sqlite pwrite")


Meet = Callable[[Point], str]
"""Is told of each point before it, and says what happens there: one of the constants below."""

GO_ON, END, HALF, FULL = "go on", "end", "half", "full"
"""The change is made; the process ends before; in the middle of writing; there is no space."""

EXIT_CODE = 77
"""Of a process that was ended at a point."""


def end() -> None:
    """End this process as ``kill -9`` does: nothing is closed, flushed or cleaned up."""
    os._exit(EXIT_CODE)


@contextmanager
def watched(directory: Path, meet: Meet) -> Iterator[None]:
    """Call ``meet`` before every change to a file in ``directory`` by this process."""
    points = _Points(directory, meet)
    with (
        mock.patch.multiple(
            os,
            fsync=points.around("fsync", os.fsync),
            replace=points.around("replace", os.replace),
            unlink=points.around("unlink", os.unlink),
            mkdir=points.around("mkdir", os.mkdir),
        ),
        mock.patch.multiple(
            Path,
            write_bytes=points.write_bytes(),
            write_text=points.write_text(),
        ),
        _sqlite(points),
    ):
        yield


class _Points:
    def __init__(self, directory: Path, meet: Meet) -> None:
        self._directory = os.path.realpath(directory)
        self._meet = meet
        self._count = 0

    def at(self, action: str, path: str) -> str:
        """What happens at the next point; ``go on`` outside of the directory."""
        path = os.path.realpath(path)
        if path != self._directory and not path.startswith(self._directory + os.sep):
            return GO_ON
        point = Point(self._count, action, _plain(os.path.relpath(path, self._directory)))
        self._count += 1
        return self._meet(point)

    def around(self, action: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(target: Any, *rest: Any, **named: Any) -> Any:
            # What has no descriptor has a path; a rename is named by where it goes.
            path = rest[0] if action == "replace" else target
            if isinstance(path, int):
                path = _path_of(path)
            exists = action != "unlink" or os.path.lexists(path)
            if exists and self.at(action, os.fspath(path)) == FULL and action != "unlink":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(target, *rest, **named)

        return called

    def write_bytes(self) -> Callable[..., int]:
        real = Path.write_bytes

        def called(path: Path, data: bytes) -> int:
            what = self.at("write", os.fspath(path))
            if what != GO_ON:
                real(path, data[: len(data) // 2])
                if what == HALF:
                    end()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(path, data)

        return called

    def write_text(self) -> Callable[..., int]:
        def called(path: Path, text: str, encoding: str | None = None, **_: Any) -> int:
            return path.write_bytes(text.encode(encoding or "utf-8"))

        return called


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _plain(name: str) -> str:
    """A file's name without the number of the process that writes it."""
    if name.startswith(".partial-") and name.count("-") > 2:
        return "partial " + name.split("-", 3)[3]
    return name


_Pwrite = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64,
    use_errno=True,
)  # fmt: skip
_Truncate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int64, use_errno=True)
_Unlink = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, use_errno=True)
_Set = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_Get = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_int),
        ("sizes", ctypes.c_int * 2),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("methods", ctypes.c_void_p * 13),
        ("set_system_call", _Set),
        ("get_system_call", _Get),
    )


@contextmanager
def _sqlite(points: _Points) -> Iterator[None]:
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    vfs = library.sqlite3_vfs_find(None)
    assert vfs.contents.name == b"unix", f"SQLite {sqlite3.sqlite_version} on another system"

    def real(name: str, kind: Any) -> Any:
        return kind(vfs.contents.get_system_call(vfs, name.encode()))

    pwrite = real("pwrite64" if _has(vfs, "pwrite64") else "pwrite", _Pwrite)
    truncate, unlink = real("ftruncate", _Truncate), real("unlink", _Unlink)

    def met(action: str, descriptor: int) -> str:
        return points.at(f"sqlite {action}", _path_of(descriptor))

    def no_space() -> int:
        ctypes.set_errno(errno.ENOSPC)
        return -1

    def on_pwrite(descriptor: int, data: int, size: int, offset: int) -> int:
        what = met("pwrite", descriptor)
        if what == FULL:
            return no_space()
        if what == HALF:
            pwrite(descriptor, data, size // 2, offset)
            end()
        return int(pwrite(descriptor, data, size, offset))

    def on_truncate(descriptor: int, size: int) -> int:
        met("truncate", descriptor)
        return int(truncate(descriptor, size))

    def on_unlink(path: bytes) -> int:
        if os.path.lexists(path):
            points.at("sqlite unlink", os.fsdecode(path))
        return int(unlink(path))

    calls = {
        "pwrite": _Pwrite(on_pwrite),
        "pwrite64": _Pwrite(on_pwrite),
        "ftruncate": _Truncate(on_truncate),
        "unlink": _Unlink(on_unlink),
    }
    present = {name: call for name, call in calls.items() if _has(vfs, name)}
    for name, call in present.items():
        vfs.contents.set_system_call(vfs, name.encode(), ctypes.cast(call, ctypes.c_void_p))
    try:
        yield
    finally:
        for name in present:
            vfs.contents.set_system_call(vfs, name.encode(), None)


def _has(vfs: Any, name: str) -> bool:
    return bool(vfs.contents.get_system_call(vfs, name.encode()))
