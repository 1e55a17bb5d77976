"""The directory of a run: who may write to it, and how far it has come."""

from __future__ import annotations

import enum
import json
import os
import shlex
from pathlib import Path

from lcprune._files import PARTIAL, make_directory, write_text
from lcprune.artifact import _layout as layout
from lcprune.artifact._finish import check_results
from lcprune.artifact._lock import check_unlocked, remove_leftovers
from lcprune.artifact._record import KIND, RunRecord, read_run
from lcprune.errors import RunError

_SQLITE_COMPANIONS = ("-wal", "-shm", "-journal")


class RunState(enum.Enum):
    """What a directory holds, as far as a run is concerned."""

    EMPTY = "empty"
    UNFINISHED = "unfinished"
    FINISHED = "finished"
    FOREIGN = "foreign"


def run_state(directory: Path) -> RunState:
    """What ``directory`` holds; one that does not exist counts as empty.

    ``RunError`` where it holds a run whose ``run.json`` is damaged.
    """
    try:
        names = {p.name for p in directory.iterdir() if not p.name.startswith(PARTIAL)}
    except FileNotFoundError:
        return RunState.EMPTY
    except NotADirectoryError:
        return RunState.FOREIGN
    except OSError as error:
        raise RunError(f"can't read {directory}: {error.strerror or error}") from error
    if not names:
        return RunState.EMPTY
    if layout.RUN not in names:
        return RunState.FOREIGN
    try:
        read_run(directory)
    except RunError as error:
        if _is_marked(directory):
            raise RunError(f"{error}; the run can't go on, --force starts it again") from error
        if _is_foreign(directory):
            return RunState.FOREIGN
        raise RunError(f"{error}; the run can't go on, choose another --out") from error
    return RunState.FINISHED if layout.SUMMARY in names else RunState.UNFINISHED


def resume_line(directory: Path, command: str) -> str:
    """What to type so that an unfinished run goes on."""
    return f"lcprune {command} --out {shlex.quote(str(directory))} --resume"


def check_run(directory: Path, *, resume: bool = False, force: bool = False) -> RunState:
    """The state of ``directory``, where a run may begin or go on there; else ``RunError``.

    Writes nothing. A directory in which another process is at work is refused, and one that
    holds anything but a run even with ``force``. A finished run that is asked to go on must have
    its results as it wrote them.
    """
    if resume and force:
        raise RunError("--resume goes on with a run and --force starts it again: choose one")
    check_unlocked(directory)
    state = _replaceable(directory) if force else run_state(directory)
    if state is RunState.FOREIGN:
        raise RunError(f"{directory} is in use and holds no run of lcprune: choose another --out")
    if state is RunState.UNFINISHED and not (resume or force):
        line = resume_line(directory, read_run(directory).command)
        raise RunError(
            f"{directory} holds an unfinished run (--force starts again); to go on: {line}"
        )
    if state is RunState.FINISHED and not (resume or force):
        raise RunError(f"{directory} holds a finished run: --force replaces it")
    if state is RunState.FINISHED and resume:
        check_results(directory)
    _check_writable(directory)
    return state


def begin_run(directory: Path, record: RunRecord) -> None:
    """Make the directory, remove what an earlier run left there, and write ``run.json``.

    ``RunError`` where the directory can't be written or holds anything but a run.
    """
    if _replaceable(directory) is RunState.FOREIGN:
        raise RunError(f"{directory} is in use and holds no run of lcprune: choose another --out")
    make_directory(directory)
    _clear(directory)
    write_text(directory / layout.RUN, record.to_json())


def _replaceable(directory: Path) -> RunState:
    """The state of a directory, where a damaged run counts as an unfinished one."""
    try:
        return run_state(directory)
    except RunError:
        if not _is_marked(directory):
            raise
        return RunState.UNFINISHED


def _is_marked(directory: Path) -> bool:
    """Whether ``run.json`` is ours by a mark, as far as it can be read at all."""
    try:
        return f'"{KIND}"'.encode() in (directory / layout.RUN).read_bytes()
    except OSError:
        return False


def _is_foreign(directory: Path) -> bool:
    """Whether ``run.json`` is whole and that of another program."""
    try:
        content = json.loads((directory / layout.RUN).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not (isinstance(content, dict) and "configuration" in content)


def _clear(directory: Path) -> None:
    """Remove a run's files and nothing else; ``summary.json`` first, since it means done."""
    journal = [layout.JOURNAL + suffix for suffix in ("", *_SQLITE_COMPANIONS)]
    names = [
        layout.SUMMARY,
        layout.REPORT,
        layout.ARTIFACT,
        layout.WEIGHTS,
        layout.BUFFERS,
        layout.PLAN,
        layout.CHECKPOINT,
        layout.BASE_CHECKPOINT,
        layout.BASE,
        *journal,
    ]
    try:
        for name in names:
            (directory / name).unlink(missing_ok=True)
        remove_leftovers(directory)
    except OSError as error:
        raise RunError(f"can't write {directory}: {error.strerror or error}") from error


def _check_writable(directory: Path) -> None:
    """Refuse at once what would only fail after minutes of work."""
    existing = directory.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise RunError(f"can't write {directory}: {existing} is not a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"can't write {directory}: no permission to write to {existing}")
