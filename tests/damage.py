"""Ways in which a file can be lost or changed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], None]


class _Leaves:
    """Unpickled, it leaves a file that shows that code ran."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._trace,))


def trace_of(path: Path) -> Path:
    """The file that exists once a pickle put in the place of ``path`` was executed."""
    return path.parent / "executed"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_its_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def removed(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Leaves(trace_of(path))))


def flipped(path: Path, place: int, by: int = 1) -> None:
    """Change one byte; ``place`` counts from the end where it is negative."""
    content = bytearray(path.read_bytes())
    content[place] ^= by
    path.write_bytes(content)


def a_flip_in_the_middle(path: Path) -> None:
    flipped(path, path.stat().st_size // 2)


DAMAGES: tuple[Damage, ...] = (
    truncated,
    without_its_end,
    longer,
    emptied,
    zeros,
    removed,
    a_directory,
    a_link_to_nowhere,
    a_link_to_itself,
    a_pickle,
    a_flip_in_the_middle,
)
