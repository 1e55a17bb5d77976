"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lcprune.errors import RunError

PARTIAL = ".partial-"
"""How the names of files begin that are still being written; such leftovers mean nothing."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to, and move it there at the end.

    The file is on disk before it takes its name, and its name before the block is left; where
    the block fails, ``path`` stays as it was. ``RunError`` where the file can't be written.
    """
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
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


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
