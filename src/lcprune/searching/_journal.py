"""Every finished trial, on disk before the next begins."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from lcprune._checks import integer, number, of_type
from lcprune._checks import path as checked_path
from lcprune._files import PARTIAL, check_own, open_regular
from lcprune._lock import locked
from lcprune._text import described, one_line
from lcprune.errors import InputError, LcpruneError, LcpruneWarning, RunError
from lcprune.graph import BoolArray, FloatArray
from lcprune.searching._result import Trial
from lcprune.searching._strategy import Candidate, Strategy

SCHEMA = 1
APPLICATION = 0x6C637072  # "lcpr": marks an SQLite file as ours
_META = ("identity", "saliency", "total")
_OBJECTS = "SELECT sql FROM sqlite_master ORDER BY sql"
_LARGEST_FILE = 2**34
_TRY = 2.0
"""Seconds that SQLite waits for another program, before a wait is told and an interrupt is seen."""
_PATIENCE = 600.0
"""Seconds that a search waits in all: a reader may hold the file for a while."""

T = TypeVar("T")

_CANDIDATE = """
    number INTEGER PRIMARY KEY,
    keep TEXT NOT NULL,
    share REAL NOT NULL,
    steps INTEGER NOT NULL,
    final INTEGER NOT NULL,
    reference INTEGER NOT NULL,
    note TEXT NOT NULL,
    asked_after INTEGER"""
_OUTCOME = """
    position INTEGER NOT NULL,
    loss REAL NOT NULL,
    digest TEXT NOT NULL,
    cost TEXT NOT NULL,
    timing TEXT NOT NULL,
    seconds REAL NOT NULL,
    same_as INTEGER"""
_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    f"CREATE TABLE trials ({_CANDIDATE}, {_OUTCOME}, checksum TEXT NOT NULL)",
    f"CREATE TABLE asks ({_CANDIDATE}, checksum TEXT NOT NULL)",
)


@dataclass(frozen=True, eq=False)
class Ask:
    """A candidate that was asked for when ``after`` trials had finished, and has not itself."""

    candidate: Candidate
    after: int


@dataclass(frozen=True, eq=False)
class JournalRecord:
    """What a journal holds: the run's identity, its saliencies, the trials finished and asked.

    ``trials`` are in the order in which they finished; ``total`` is how many are asked for, and
    ``in_flight`` what was begun and not finished, by number.
    """

    identity: Mapping[str, Any]
    saliency: FloatArray
    trials: tuple[Trial, ...]
    total: int
    in_flight: tuple[Ask, ...] = ()

    def replay(self, strategy: Strategy) -> None:
        """Ask and tell a fresh strategy all of this, in the order in which it happened.

        What it answers is dropped: what was really tried is in the journal. ``RunError`` where the
        trials, whole as they are, are none that the strategy can have proposed.
        """
        try:
            self._replay(strategy)
        except LcpruneError:
            raise
        except Exception as error:
            raise RunError(
                "the journal's trials are none of this search: telling them again gives "
                f"{described(error, 160)}"
            ) from error

    def _replay(self, strategy: Strategy) -> None:
        asks = [
            position if trial.asked_after is None else trial.asked_after
            for position, trial in enumerate(self.trials)
        ]
        asks += [ask.after for ask in self.in_flight]
        asks.sort(reverse=True)
        for position, trial in enumerate(self.trials):
            while asks and asks[-1] <= position:
                asks.pop()
                strategy.ask()
            strategy.tell(trial.candidate, trial.loss)
        for _ in asks:
            strategy.ask()


class _Patient:
    """Does what another program that is reading or writing the file may be in the way of."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def do(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, tried again and again; after ``_PATIENCE`` SQLite's own error."""
        began, told = time.monotonic(), False
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() - began > _PATIENCE:
                    raise
                if not told:
                    warnings.warn(
                        f"journal {self._path} is in use by another program: waiting for it",
                        LcpruneWarning,
                        stacklevel=2,
                    )
                    told = True


class Journal:
    """A search's memory in an SQLite file; ``path`` none keeps it in memory.

    A file that is absent or empty is begun in one transaction; an existing one is read into
    ``record``, which holds what the file says, not what was given. It stays in SQLite's
    rollback mode throughout, so that a copy is a single file that opens read-only. Every row has
    a checksum, since SQLite's own check sees no digit that another one has replaced.

    Trials are kept in the order in which they finished, each with how many had finished when it
    was asked for; what is in flight is kept apart until it has.

    Raises ``RunError`` for a file that is damaged, foreign, of another schema, held by another
    process (which it names), or can't be written.

    Example:
        with Journal(path, identity, saliency.values, total=400) as journal:
            for trial in trials[len(journal.record.trials) :]:
                journal.commit(trial)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        identity: Mapping[str, Any],
        saliency: FloatArray,
        total: int,
    ) -> None:
        self._path = None if path is None else checked_path("journal", path, of_file=True)
        self._patient = _Patient(self._path)
        with ExitStack() as held:
            if self._path is not None:
                _check_files(self._path, check_own)
                file = self._path.resolve()
                if not file.parent.is_dir():
                    raise RunError(f"journal {path} can't be used, expected a folder to hold it")
                lock = file.with_name(f"{PARTIAL}{file.name}.lock")
                held.enter_context(locked(lock, f"journal {self._path}"))
            with _in_one_line(self._path):
                self._connection = held.enter_context(
                    closing(
                        sqlite3.connect(
                            self._path or ":memory:", isolation_level=None, timeout=_TRY
                        )
                    )
                )
                self._patient.do(lambda: self._connection.execute("PRAGMA synchronous = FULL"))
                if self._patient.do(lambda: _is_empty(self._connection)):
                    self._begin(identity, saliency, total)
                self.record = self._patient.do(lambda: _read(self._connection, self._path))
            self._finished = len(self.record.trials)
            self._held = held.pop_all()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def extend(self, total: int) -> None:
        """Note that another number of trials is asked for."""
        with self._transaction() as run:
            run("UPDATE meta SET value = ? WHERE key = 'total'", (total,))
            self._check_meta()

    def ask(self, ask: Ask) -> None:
        """Write down what is begun while others are in flight; when this returns it is on disk."""
        with self._transaction() as run:
            _insert(run, "asks", _candidate_row(ask.candidate, ask.after))

    def commit(self, trial: Trial) -> None:
        """Write a trial, which is in flight no more; when this returns it is on disk."""
        row = _trial_row(trial, self._finished)
        try:
            with self._transaction() as run:
                _insert(run, "trials", row)
                run("DELETE FROM asks WHERE number = ?", (trial.number,))
        except RunError as error:
            if not isinstance(error.__cause__, sqlite3.IntegrityError):
                raise
            raise RunError(
                f"journal {self._path} has trial {trial.number} already:"
                " another search writes to it, expected one at a time"
            ) from error
        self._finished += 1

    def _begin(self, identity: Mapping[str, Any], saliency: FloatArray, total: int) -> None:
        values = {
            "identity": json.dumps(identity),
            "saliency": saliency.astype("<f8").tobytes(),
            "total": total,
        }
        # The marks in the header are part of the transaction too: all of it is there or none.
        with self._transaction() as run:
            run(f"PRAGMA application_id = {APPLICATION}")
            run(f"PRAGMA user_version = {SCHEMA}")
            for table in _TABLES:
                run(table)
            for row in values.items():
                run("INSERT INTO meta VALUES (?, ?)", row)
            self._check_meta()

    def _check_meta(self) -> None:
        """Write the checksum of what is not a trial."""
        meta = dict(self._connection.execute("SELECT key, value FROM meta"))
        row = ("checksum", _checksum(meta[key] for key in _META))
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """All that is run inside, or nothing."""
        with _in_one_line(self._path):
            self._patient.do(lambda: self._connection.execute("BEGIN IMMEDIATE"))
            try:
                yield self._connection.execute
                self._patient.do(lambda: self._connection.execute("COMMIT"))
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def read_journal(path: str | os.PathLike[str]) -> JournalRecord:
    """What the journal at ``path`` holds, finished or not; the file is only read.

    Raises ``RunError`` where there is none, or for one that is damaged, foreign, or of another
    schema.
    """
    path = checked_path("journal", path, of_file=True)
    if not os.path.lexists(path):
        raise RunError(f"no journal at {path}, expected the file of a search")
    _check_files(path, _check_readable)
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with _in_one_line(path), closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        return _read(connection, path)


def _check_files(path: Path, check: Callable[[Path], None]) -> None:
    """Look at a journal and the files that SQLite opens beside it: it would wait for a pipe."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        check(path.with_name(path.name + suffix))


def _check_readable(path: Path) -> None:
    if os.path.lexists(path):
        with open_regular(path, RunError, limit=_LARGEST_FILE):
            pass


def _candidate_row(candidate: Candidate, after: int | None) -> tuple[Any, ...]:
    return (
        candidate.number,
        np.packbits(candidate.keep).tobytes().hex(),
        float(candidate.share),
        candidate.steps,
        int(candidate.final),
        int(candidate.reference),
        json.dumps(candidate.note),
        after,
    )


def _trial_row(trial: Trial, position: int) -> tuple[Any, ...]:
    return (
        *_candidate_row(trial.candidate, trial.asked_after),
        position,
        float(trial.loss),
        trial.digest,
        json.dumps(dict(trial.cost)),
        json.dumps(dict(trial.timing)),
        float(trial.seconds),
        trial.same_as,
    )


def _insert(run: Any, table: str, row: tuple[Any, ...]) -> None:
    marks = ",".join("?" * (len(row) + 1))
    run(f"INSERT INTO {table} VALUES ({marks})", (*row, _checksum(row)))


def _read(connection: sqlite3.Connection, path: Path | None) -> JournalRecord:
    """All that the file says; ``RunError`` where it is no whole journal."""
    if _pragma(connection, "application_id") != APPLICATION:
        raise RunError(f"{path} is not a journal of lcprune, expected one or a new file")
    version = _pragma(connection, "user_version")
    if version != SCHEMA:
        raise RunError(f"journal {path} has schema {version}, expected {SCHEMA}")
    try:
        # Before anything of it is read: a view or a trigger would be run.
        if [sql for (sql,) in connection.execute(_OBJECTS)] != sorted(_TABLES):
            raise ValueError(f"expected {len(_TABLES)} tables as lcprune makes them")
        if _pragma(connection, "quick_check") != "ok":
            raise ValueError("expected a whole SQLite file")
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        if meta["checksum"] != _checksum(meta[key] for key in _META):
            raise ValueError("a checksum differs")
        saliency = np.frombuffer(meta["saliency"], dtype="<f8").astype(np.float64)
        trials = []
        for position, row in enumerate(_rows(connection, "trials ORDER BY position")):
            candidate, after = _candidate_of(row[:8], len(saliency))
            stored, loss, digest, cost, timing, seconds, same_as = row[8:]
            if stored != position:
                raise ValueError("expected trials in the order in which they finished")
            if not isinstance(loss, float):  # infinity is one
                raise ValueError("expected a loss that is a number")
            trials.append(
                Trial(
                    number=candidate.number,
                    keep=candidate.keep,
                    loss=loss,
                    digest=of_type("digest", digest, str),
                    cost=of_type("cost", json.loads(cost), Mapping[str, int]),
                    share=candidate.share,
                    final=candidate.final,
                    note=candidate.note,
                    timing=of_type("timing", json.loads(timing), Mapping[str, float]),
                    same_as=None if same_as is None else integer("same_as", same_as, least=0),
                    asked_after=after,
                    reference=candidate.reference,
                    steps=candidate.steps,
                    seconds=number("seconds", seconds, least=0),
                )
            )
        in_flight = []
        for row in _rows(connection, "asks ORDER BY number"):
            candidate, after = _candidate_of(row, len(saliency))
            in_flight.append(Ask(candidate, integer("asked_after", after)))
        numbers = [*(t.number for t in trials), *(a.candidate.number for a in in_flight)]
        if sorted(numbers) != list(range(len(numbers))):
            raise ValueError(f"expected trials 0 … {len(numbers) - 1}")
        return JournalRecord(
            identity=of_type("identity", json.loads(meta["identity"]), Mapping[str, Any]),
            saliency=saliency,
            trials=tuple(trials),
            total=integer("total", meta["total"], least=1),
            in_flight=tuple(in_flight),
        )
    except (InputError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        own = isinstance(error, ValueError | InputError)
        why = one_line(error, 160) if own else described(error, 160)
        raise RunError(
            f"journal {path} is damaged: {why}; remove it to search from the start"
        ) from error


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[list[Any]]:
    for *row, found in connection.execute(f"SELECT * FROM {table}").fetchall():
        if found != _checksum(row):
            raise ValueError("a checksum differs")
        yield row


def _candidate_of(row: list[Any], groups: int) -> tuple[Candidate, Any]:
    """The first columns of a row, and how many trials had finished before."""
    name, keep, share, steps, final, reference, note, after = row
    read = of_type("note", json.loads(note), Mapping[str, Any])
    if "latent" in read:
        of_type("note.latent", read["latent"], tuple[tuple[float, ...], ...])
    return (
        Candidate(
            integer("number", name, least=0),
            _unpacked(keep, groups),
            number("share", share, least=0, most=1),
            bool(integer("final", final, least=0, most=1)),
            read,
            bool(integer("reference", reference, least=0, most=1)),
            integer("steps", steps, least=0),
        ),
        None if after is None else integer("asked_after", after, least=0),
    )


def _unpacked(keep: str, groups: int) -> BoolArray:
    packed = np.frombuffer(bytes.fromhex(keep), dtype=np.uint8)
    if len(packed) != -(-groups // 8):
        raise ValueError(f"expected masks of {groups} groups")
    return np.unpackbits(packed, count=groups).astype(np.bool_)


def _checksum(values: Iterable[Any]) -> str:
    """Of what a row holds, in the types that SQLite gives back."""
    plain = [value.hex() if isinstance(value, bytes) else value for value in values]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(tables == 0 and _pragma(connection, "application_id") == 0)


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@contextmanager
def _in_one_line(path: Path | None) -> Iterator[None]:
    """What SQLite raises, as ``RunError``."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        why = one_line(error, 160)
        # What SQLite says of a file's contents, and what it can't even say.
        if type(error) in (sqlite3.DatabaseError, UnicodeDecodeError):
            raise RunError(
                f"journal {path} is damaged ({why}): remove it to search from the start"
            ) from error
        raise RunError(
            f"journal {path} can't be used ({why}), expected one that lcprune wrote, or a"
            " path that can be written"
        ) from error
