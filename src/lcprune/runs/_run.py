"""The directory of a run: who may write to it, what it found out, and which files are its results.

``run.json`` is written first. It holds the command, the options, and the run's state: what it
found out on the way, and at the end the manifest, the hashes of its results. ``summary.json`` is
written last and means done.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from lcprune._checks import of_type
from lcprune._files import (
    PARTIAL,
    make_directory,
    read_sealed_json,
    read_whole,
    sealed_json,
    write_text,
)
from lcprune._lock import LOCK, check_unlocked, locked
from lcprune._text import shown
from lcprune.artifact import (
    ARTIFACT,
    BUFFERS,
    NEW,
    PLAN,
    WEIGHTS,
    read_description,
    read_file,
    versions,
)
from lcprune.data import runs_code as data_runs_code
from lcprune.engines import SUFFIXES
from lcprune.errors import InputError, LcpruneWarning, RunError
from lcprune.models import runs_code as model_runs_code
from lcprune.runs._options import Options
from lcprune.runs._reporter import Reporter

Value = TypeVar("Value")

RUN = "run.json"
JOURNAL = "search.sqlite"
BASE = "base.safetensors"
BASE_CHECKPOINT = "base-checkpoint.pt"
CHECKPOINT = "checkpoint.pt"
GRAPH = "graph.json"
SUMMARY = "summary.json"
SWEEP = "sweep.json"
LATENCY = "latency.json"
EXPORTED = "model"
"""How a network's files for engines are named, before the suffix of the format."""
EXPORTED_INT8 = "model-int8"
"""The same, of those in int8."""

START = "start"
"""What in the state of a run the search starts from."""
POINTS = "points"
"""What in the state of a sweep names the directories of its runs."""

_SAVED = (ARTIFACT, WEIGHTS, BUFFERS, PLAN)
_OWN = (
    SWEEP,  # removed first, since they mean done
    SUMMARY,
    GRAPH,
    LATENCY,
    *_SAVED,
    *(name + NEW for name in _SAVED),
    CHECKPOINT,
    BASE_CHECKPOINT,
    BASE,
    *(JOURNAL + suffix for suffix in ("", "-wal", "-shm", "-journal")),
    *(
        f"{name}{suffix}"
        for name in (EXPORTED, EXPORTED_INT8)
        for suffix in (*SUFFIXES.values(), ".bin")
    ),
)
_KIND = "lcprune run"
"""How ``run.json`` is told from files of that name that others write."""
_COMMANDS = ("demo", "prune", "train")
MANIFEST = "results_sha256"
"""What in the state of a run has the hashes of its results."""
_VOUCHED = (ARTIFACT, GRAPH)
"""What the manifest names beside the summary; ``artifact.json`` names the network's files."""
_RECORD = ("command", "configuration", "state", "versions")


class RunState(enum.Enum):
    """What a directory holds, as far as a run is concerned."""

    EMPTY = "empty"
    UNFINISHED = "unfinished"
    FINISHED = "finished"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class RunRecord:
    """The contents of ``run.json``.

    ``command`` is the subcommand that began the run, ``configuration`` what decides its result,
    ``state`` what it found out on the way and needs again when it goes on, ``versions`` those that
    it began with.
    """

    command: str
    configuration: Mapping[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)

    def to_json(self) -> str:
        """The record as JSON text with a checksum of itself."""
        return sealed_json(
            {
                "kind": _KIND,
                "command": self.command,
                "configuration": dict(self.configuration),
                "state": dict(self.state),
                "versions": dict(self.versions),
            }
        )

    @property
    def foreign(self) -> dict[str, str]:
        """What runs code from outside of lcprune, or lets a machine send some, by option."""
        found = {
            "model": (model_runs_code, self.configuration.get("model")),
            "data": (data_runs_code, self.configuration.get("data")),
            "ray_address": (bool, self.configuration.get("ray_address")),
        }
        return {
            key: value
            for key, (is_foreign, value) in found.items()
            if isinstance(value, str) and is_foreign(value)
        }

    @property
    def points(self) -> tuple[str, ...]:
        """The directories of a sweep's runs within its own; of a run there are none."""
        named = of_type(f"{RUN}: {POINTS}", self.state.get(POINTS, []), tuple[str, ...], RunError)
        if not all(name and Path(name).name == name for name in named):
            raise RunError(f"{RUN}: {POINTS} are {shown(named)}, expected names of directories")
        return tuple(named)

    @property
    def results(self) -> str:
        """The file whose presence means that it is done."""
        return SWEEP if self.points else SUMMARY

    def first_difference(self, configuration: Mapping[str, Any]) -> str | None:
        """The first key whose value is not the stored one; the order is that of the run."""
        for key in [*self.configuration, *configuration]:
            if self.configuration.get(key) != configuration.get(key):
                return key
        return None


class Run:
    """A run at work: its directory, what it found out so far, and whom it tells."""

    def __init__(self, directory: Path, record: RunRecord, reporter: Reporter) -> None:
        self.directory = directory
        self.reporter = reporter
        self.record = record

    def once(self, key: str, kind: Any, find: Callable[[], Any]) -> Any:
        """What ``find`` returns, found by an earlier process of the run or now.

        It is JSON, and comes back as what the type hint ``kind`` says; ``RunError`` where what was
        found earlier is nothing of that kind.
        """
        if key not in self.record.state:
            self._note(key, find())
        return of_type(f"{self.directory / RUN}: {key}", self.record.state[key], kind, RunError)

    def same(self, key: str, value: str, what: str) -> str:
        """Keep a hash of what the run works on; ``RunError`` where a resumed run has another."""
        if self.once(key, str, lambda: value) != value:
            raise RunError(f"can't resume: the {what} are not those that the run began with")
        return value

    def finish(self, summary: str) -> None:
        """Note the manifest in ``run.json``, and write the summary, last of all."""
        manifest = {
            name: _sha256(read_whole(self.directory / name, RunError))
            for name in _VOUCHED
            if (self.directory / name).exists()
        }
        name = self.record.results
        self._note(MANIFEST, manifest | {name: _sha256(summary.encode())})
        write_text(self.directory / name, summary)

    def _note(self, key: str, value: Any) -> None:
        self.record = replace(self.record, state={**self.record.state, key: value})
        write_text(self.directory / RUN, self.record.to_json())


@contextmanager
def open_run(
    directory: Path,
    options: Options,
    command: str,
    record: RunRecord | None,
    reporter: Reporter,
    *,
    force: bool = False,
    state: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Run]:
    """Begin a run, or go on with that of ``record``; within, the directory is closed to others.

    One that begins has ``state`` from the first moment on.

    What killed processes had begun to write there is removed. ``RunError`` where another process
    holds the directory, or began a run there after it was found empty and without ``force``; where
    it can't be written or holds anything but a run.
    """
    make_directory(directory)
    with locked(_lock_of(directory), str(directory)):
        if record is None:
            runs = (RunState.UNFINISHED, RunState.FINISHED)
            if not force and run_state(directory) in runs:
                raise RunError(f"{directory} holds a run that another process began meanwhile")
            record = RunRecord(command, options.as_json(), state)
            begin_run(directory, record)
        else:
            record = read_run(directory)  # another process may have gone on meanwhile
            with suppress(OSError):
                for path in _leftovers(directory):
                    path.unlink(missing_ok=True)
        yield Run(directory, record, reporter)


def earlier_run(
    options: Options, directory: Path, command: str, *, resume: bool, force: bool
) -> tuple[RunState, RunRecord | None]:
    """What ``directory`` holds, and the record of the run to go on with; none where a new one
    begins.

    ``RunError`` where neither may be.
    """
    state = check_run(directory, resume=resume, force=force)
    if not resume or state is RunState.EMPTY:
        return state, None
    record = read_run(directory)
    check_command(directory, record, command)
    _warn_of_version(directory, record)
    asked = options.as_json()
    key = record.first_difference(asked)
    if key is not None:
        raise RunError(
            f"can't resume with another {key}: the run in {directory} has "
            f"{record.configuration.get(key)!r}, asked was {asked.get(key)!r}"
        )
    return state, record


def check_command(directory: Path, record: RunRecord, command: str) -> None:
    """``RunError`` where another subcommand began the run in ``directory``."""
    if record.command != command:
        raise RunError(
            f"can't resume: {directory} holds a run of {record.command}; to go on with it: "
            f"{resume_line(directory, record.command)}"
        )


def check_trust(directory: Path, record: RunRecord, given: Mapping[str, Any]) -> None:
    """``RunError`` where going on would run code that only the directory names.

    ``given`` holds the options that the user gave beside it: code that they name is the user's.
    """
    for key, value in record.foreign.items():
        if key not in given:
            raise RunError(
                f"the run in {directory} has {key} = {value!r}, which runs code from outside "
                "lcprune: allow it with --trust-factory, or give that option again"
            )


def _warn_of_version(directory: Path, record: RunRecord) -> None:
    then, now = record.versions.get("lcprune"), versions().get("lcprune")
    if then != now:
        warnings.warn(
            f"the run in {directory} was begun by lcprune {then or 'of another version'} and goes "
            f"on with {now}: its result may be neither's",
            LcpruneWarning,
            stacklevel=4,
        )


def resume_line(directory: Path, command: str, *, trust: bool = False) -> str:
    """What to type so that an unfinished run goes on; with ``trust`` in the code that it names."""
    line = f"lcprune {command} --out {shlex.quote(str(directory))} --resume"
    return f"{line} --trust-factory" if trust else line


def run_state(directory: Path) -> RunState:
    """What ``directory`` holds; one that does not exist counts as empty.

    ``RunError`` where it holds a run whose ``run.json`` is damaged.
    """
    try:
        names = {p.name for p in directory.iterdir() if not p.name.startswith(PARTIAL)}
    except FileNotFoundError:
        return RunState.EMPTY
    except OSError as error:
        raise RunError(f"can't read {directory}: {error.strerror or error}") from error
    if not names:
        return RunState.EMPTY
    if RUN not in names:
        return RunState.FOREIGN
    try:
        record = read_run(directory)
        done = record.results in names and all(
            (directory / name / SUMMARY).exists() for name in record.points
        )
    except RunError as error:
        if _is_marked(directory):
            raise RunError(f"{error}; the run can't go on, --force starts it again") from error
        if _is_foreign(directory):
            return RunState.FOREIGN
        raise RunError(f"{error}; the run can't go on, choose another --out") from error
    return RunState.FINISHED if done else RunState.UNFINISHED


def check_run(directory: Path, *, resume: bool = False, force: bool = False) -> RunState:
    """The state of ``directory``, where a run may begin or go on there; else ``RunError``.

    Writes nothing. A directory in which another process is at work is refused, and one that
    holds anything but a run even with ``force``. A finished run that is asked to go on must have
    its results as it wrote them.
    """
    if resume and force:
        raise RunError("--resume goes on with a run and --force starts it again: choose one")
    check_unlocked(_lock_of(directory), str(directory))
    check_unlocked(directory / f"{PARTIAL}{JOURNAL}{LOCK}", str(directory / JOURNAL))
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

    Of an earlier sweep its runs go too, and of a sweep that begins those that have the places of
    its own. ``RunError`` where a directory can't be written or holds anything but a run.
    """
    if _replaceable(directory) is RunState.FOREIGN:
        raise RunError(f"{directory} is in use and holds no run of lcprune: choose another --out")
    make_directory(directory)
    try:
        points = _earlier_points(directory, record)
        earlier = [*(directory / name for name in _OWN), *_leftovers(directory)]
        for point in points:  # run.json last, so that what is left of a run is known for one
            earlier += [*(point / name for name in _OWN), *_leftovers(point), point / RUN]
        for path in earlier:  # all before the first is gone
            if path.is_dir() and not path.is_symlink():
                raise RunError(f"can't write {path}: it is a directory, expected a file of a run")
        for path in earlier:
            path.unlink(missing_ok=True)
        for point in points:
            with suppress(OSError):  # what somebody has put there stays
                point.rmdir()
    except OSError as error:
        raise RunError(f"can't write {directory}: {error.strerror or error}") from error
    write_text(directory / RUN, record.to_json())


def _earlier_points(directory: Path, record: RunRecord) -> list[Path]:
    """The runs of a sweep that was in ``directory``, and those in the places of a new one's."""
    names = dict.fromkeys(record.points)
    with suppress(RunError):  # there was none, or it is damaged
        names |= dict.fromkeys(read_run(directory).points)
    found = [directory / name for name in names if os.path.lexists(directory / name)]
    for point in found:
        check_no_link(point)
        check_unlocked(_lock_of(point), str(point))
        if _replaceable(point) is RunState.FOREIGN:
            raise RunError(f"{point} is in use and holds no run of lcprune: choose another --out")
    return found


def check_no_link(point: Path) -> None:
    """``RunError`` where the run of a sweep is in another place than the sweep."""
    if point.is_symlink():
        raise RunError(f"can't write {point}: it is a link, expected a directory of the sweep")


def check_is_run(directory: Path) -> None:
    """``RunError`` where a sweep is given in the place of one of its runs."""
    try:
        points = read_run(directory).points
    except RunError:
        return  # whoever reads it says what is wrong
    if points:
        raise RunError(
            f"{directory} holds a sweep, expected one of its runs: "
            f"{', '.join(str(directory / name) for name in points)}"
        )


def read_run(directory: Path) -> RunRecord:
    """The record of a run; ``RunError`` where the directory holds none that can be read."""
    path = directory / RUN
    raw = read_sealed_json(path, RunError)
    if raw.get("kind") != _KIND:
        raise RunError(f"{path} was not written by lcprune")
    record: RunRecord = of_type(str(path), {k: raw.get(k) for k in _RECORD}, RunRecord, RunError)
    if record.command not in _COMMANDS:
        raise RunError(f"{path} is of a command {record.command!r}, expected {_COMMANDS}")
    return record


def check_results(directory: Path) -> None:
    """``RunError`` unless the results of a finished run are the files that it wrote."""
    record, manifest = read_run(directory), _manifest(directory)
    for name in {record.results: "", **manifest}:
        read_result(directory, name)
    for name in record.points:
        check_no_link(directory / name)
        check_results(directory / name)
    if ARTIFACT not in manifest:
        return
    try:
        description = read_description(directory)
        for name in description.sha256:
            read_file(directory, name, description)
    except InputError as error:
        raise RunError(f"{error}{_mend(directory)}") from error


def read_result(directory: Path, name: str) -> bytes:
    """A result of a finished run; ``RunError`` where it is not the file that the run wrote."""
    path = directory / name
    try:
        content = read_whole(path, RunError)
    except RunError as error:
        raise RunError(f"{error}{_mend(directory)}") from error
    if _manifest(directory).get(name) != _sha256(content):
        raise RunError(
            f"{path} is not the file that the run wrote: its hash differs{_mend(directory)}"
        )
    return content


def _manifest(directory: Path) -> Mapping[str, str]:
    state = read_run(directory).state
    name = f"{directory / RUN}: {MANIFEST}"
    manifest: dict[str, str] = of_type(name, state.get(MANIFEST, {}), Mapping[str, str], RunError)
    return {name: manifest[name] for name in (SUMMARY, SWEEP, *_VOUCHED) if name in manifest}


def _mend(directory: Path) -> str:
    return f" (remove {directory / read_run(directory).results}, and --resume writes it again)"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lock_of(directory: Path) -> Path:
    return directory / f"{PARTIAL}run{LOCK}"


def _leftovers(directory: Path) -> list[Path]:
    """What processes that were killed had begun to write."""
    return [path for path in directory.glob(f"{PARTIAL}*") if path.suffix != LOCK]


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
        return f'"{_KIND}"'.encode() in read_whole(directory / RUN)
    except InputError:
        return False


def _is_foreign(directory: Path) -> bool:
    """Whether ``run.json`` is whole and that of another program."""
    try:
        content = json.loads(read_whole(directory / RUN))
    except (InputError, ValueError, RecursionError):
        return False
    return not (isinstance(content, dict) and "configuration" in content)


def _check_writable(directory: Path) -> None:
    """Refuse at once what would only fail after minutes of work."""
    existing = directory.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise RunError(f"can't write {directory}: {existing} is not a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"can't write {directory}: no permission to write to {existing}")
