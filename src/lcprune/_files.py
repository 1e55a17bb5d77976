"""Files that are written whole or not at all, and read only where they are whole."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from lcprune._text import one_line
from lcprune.errors import InputError, RunError

PARTIAL = ".partial-"
"""How the names of files begin that are still being written; such leftovers mean nothing."""

SCHEMA = 1
"""Of every JSON file with a checksum."""

LARGEST = 2**34
"""Bytes of the largest file that is read whole: more than the weights of any network."""
_LARGEST_JSON = 2**28
_LARGEST_TOML = 2**15

_READING = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer is not waited for
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_CHECKSUM = "checksum"
_SEAL = b"\nlcprune sha256 "
_SEALED = len(_SEAL) + 64
_numbers = itertools.count()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to, and move it there at the end.

    The file is on disk before it takes its name, and its name before the block is left; where
    the block fails, ``path`` stays as it was. No symbolic link is followed: one that has the
    temporary name is removed, one at ``path`` is replaced. ``RunError`` where the file can't be
    written.
    """
    # A name of its own for every writer: threads of one process write side by side too.
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{next(_numbers)}-{path.name}")
    try:
        temporary.unlink(missing_ok=True)  # of a killed process that had the same number
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all; ``RunError`` where it can't be written."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_directory(path: Path) -> None:
    """Create a directory with its parents; ``RunError`` where that can't be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """Wait until a file's contents, or a directory's names, are on disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no directories
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_regular(
    path: Path, error: type[InputError] = InputError, *, limit: int = LARGEST
) -> Iterator[BufferedReader]:
    """Open a file that is not ours for reading: an ordinary one, of at most ``limit`` bytes.

    A pipe, a device or a directory is refused and never waited for. ``error`` where the file is
    missing, too large, or nothing that can be read as one; also for an ``OSError`` in the block.
    """
    try:
        with os.fdopen(_opened(path, error, limit), "rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"can't read {path}: it is missing") from None
    except OSError as caught:
        raise error(f"can't read {path}: {caught.strerror or caught}") from caught


def _opened(path: Path, error: type[InputError], limit: int) -> int:
    try:
        descriptor = os.open(path, _READING)
    except ValueError as caught:  # a NUL in its name
        raise error(f"can't read {path}: {caught}") from caught
    status = os.fstat(descriptor)
    why = "it is not an ordinary file" if not stat.S_ISREG(status.st_mode) else ""
    if not why and status.st_size > limit:
        why = f"expected at most {limit} bytes, got {status.st_size}"
    if why:
        os.close(descriptor)
        raise error(f"can't read {path}: {why}")
    return descriptor


def read_whole(path: Path, error: type[InputError] = InputError, *, limit: int = LARGEST) -> bytes:
    """The bytes of a file, as of ``open_regular``."""
    with open_regular(path, error, limit=limit) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1)
        if len(content) > size:  # one of the system's, or written to at this moment
            raise error(f"can't read {path}: it is longer than the system says")
        return content


def read_toml(path: Path, error: type[InputError] = InputError) -> dict[str, Any]:
    """The values in a small TOML file by key, with ``_`` for ``-``; ``error`` where it is none."""
    content = read_whole(path, error, limit=_LARGEST_TOML)
    try:
        raw = tomllib.loads(content.decode("utf-8-sig"))  # some editors begin with a mark
    except ValueError as caught:  # TOML that is wrong, or bytes that are not text
        raise error(f"{path} is not TOML: {one_line(caught)}") from caught
    except RecursionError as caught:
        raise error(f"{path} is not TOML as expected: it is nested too deep") from caught
    return {key.replace("-", "_"): value for key, value in raw.items()}


def check_own(path: Path, error: type[InputError] = RunError) -> None:
    """``error`` where what is there is no ordinary file, or a link: not to be written in place."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise error(f"can't write {path}: it is a link or no ordinary file")
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as caught:
        raise error(f"can't write {path}: {getattr(caught, 'strerror', caught)}") from caught


def write_sealed(path: Path, content: bytes) -> None:
    """Write bytes and their SHA-256 after them; ``RunError`` where that can't be done."""
    with replacing(path) as temporary:
        temporary.write_bytes(content + _SEAL + hashlib.sha256(content).hexdigest().encode())


def read_sealed(path: Path) -> bytes:
    """What ``write_sealed`` was given; ``RunError`` where a single byte is not as it was."""
    raw = read_whole(path, RunError)
    content, seal = raw[:-_SEALED], raw[-_SEALED:]
    if seal != _SEAL + hashlib.sha256(content).hexdigest().encode():
        raise RunError(f"{path} is damaged: its checksum differs")
    return content


def sealed_json(values: Mapping[str, Any]) -> str:
    """``values`` as JSON text, with the schema first and a checksum of the contents last."""
    values = {"schema": SCHEMA, **values}
    return json.dumps({**values, _CHECKSUM: _checksum(values)}, indent=1, allow_nan=False)


def read_sealed_json(path: Path, error: type[InputError] = InputError) -> dict[str, Any]:
    """The values in a file that holds what ``sealed_json`` gave.

    The checksum is of the contents, not of the text: other spaces change nothing. ``error``
    where the file is missing or damaged, or is of another schema.
    """
    try:
        raw: dict[str, Any] = json.loads(read_whole(path, error, limit=_LARGEST_JSON))
        schema = raw.get("schema") if isinstance(raw, dict) else None
        whole = type(schema) is int and raw.pop(_CHECKSUM, None) == _checksum(raw)
    except (ValueError, RecursionError) as caught:
        raise error(f"{path} is damaged: expected JSON that lcprune wrote") from caught
    if type(schema) is not int:
        raise error(f"{path} is damaged, or was not written by lcprune: it has no schema")
    if not whole:
        raise error(f"{path} is damaged: its checksum differs")
    if schema != SCHEMA:
        wrote = raw.get("versions")
        wrote = wrote.get("lcprune") if isinstance(wrote, dict) else None
        raise error(
            f"{path} is of schema {schema}, written by lcprune {wrote or 'of another version'}; "
            f"expected schema {SCHEMA}"
        )
    return raw


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(values: Mapping[str, Any]) -> str:
    # Through JSON once, so that it is the same of what was written and of what is read.
    read = json.loads(json.dumps(values))
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()
