"""Every finished trial, on disk before the next begins."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lcprune._factory import one_line
from lcprune.errors import RunError
from lcprune.ranking import FloatArray
from lcprune.searching._trial import Trial

SCHEMA = 2
_UNCHECKED = 1
"""The schema from before rows had checksums: read as it is, written to only once it has them."""
_APPLICATION = 0x6C637072  # "lcpr": marks an SQLite file as ours
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    latent TEXT NOT NULL,
    origin TEXT NOT NULL,
    parent INTEGER,
    loss REAL NOT NULL,
    digest TEXT NOT NULL,
    cost TEXT NOT NULL,
    timing TEXT NOT NULL,
    same_as INTEGER,
    checksum TEXT NOT NULL
);
"""
_COLUMNS = "number, latent, origin, parent, loss, digest, cost, timing, same_as"
_META = ("identity", "saliency", "total")


@dataclass(frozen=True, eq=False)
class JournalRecord:
    """What a journal holds: the run's identity, its saliencies, the trials finished and asked."""

    identity: Mapping[str, Any]
    saliency: FloatArray
    trials: tuple[Trial, ...]
    total: int


class Journal:
    """A search's memory in an SQLite file; ``path`` none keeps it in memory.

    A file that is absent or empty is begun in one transaction; an existing one is read into
    ``record``, which holds what the file says, not what was given. It stays in SQLite's
    rollback mode throughout, so that a copy is a single file that opens read-only.

    Raises ``RunError`` for a file that is damaged, foreign, of another schema, or can't be
    written.

    Example:
        with Journal(path, identity, saliency.values, total=400) as journal:
            for trial in trials[len(journal.record.trials) :]:
                journal.commit(trial)
    """

    def __init__(
        self, path: Path | None, identity: Mapping[str, Any], saliency: FloatArray, total: int
    ) -> None:
        self._path = path
        with _one_line(path):
            self._connection = sqlite3.connect(
                ":memory:" if path is None else path, isolation_level=None, timeout=30
            )
        try:
            with _one_line(path):
                self._connection.execute("PRAGMA synchronous = FULL")
                if _is_empty(self._connection):
                    self._begin(identity, saliency, total)
                self.record = _read(self._connection, path)
                if _pragma(self._connection, "user_version") == _UNCHECKED:
                    self._upgrade()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def extend(self, total: int) -> None:
        """Note that another number of trials is asked for."""
        with _one_line(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("UPDATE meta SET value = ? WHERE key = 'total'", (total,))
            self._check_meta()
            self._connection.execute("COMMIT")

    def commit(self, trial: Trial) -> None:
        """Write a trial; when this returns it is on disk."""
        row = (
            trial.number,
            json.dumps(trial.latent),
            trial.origin,
            trial.parent,
            float(trial.loss),
            trial.digest,
            json.dumps(dict(trial.cost)),
            json.dumps(dict(trial.timing)),
            trial.same_as,
        )
        with _one_line(self._path):
            try:
                self._connection.execute(
                    "INSERT INTO trials VALUES (?,?,?,?,?,?,?,?,?,?)", (*row, _checksum(row))
                )
            except sqlite3.IntegrityError as error:
                raise RunError(
                    f"journal {self._path} has trial {trial.number} already:"
                    " another search writes to it, expected one at a time"
                ) from error

    def _begin(self, identity: Mapping[str, Any], saliency: FloatArray, total: int) -> None:
        values = {
            "identity": json.dumps(identity),
            "saliency": saliency.astype("<f8").tobytes(),
            "total": total,
        }
        # The marks in the header are part of the transaction too: all of it is there or none.
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        self._connection.execute(f"PRAGMA user_version = {SCHEMA}")
        for statement in _TABLES.split(";"):
            self._connection.execute(statement)
        self._connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
        self._check_meta()
        self._connection.execute("COMMIT")

    def _check_meta(self) -> None:
        """Write the checksum of what is not a trial."""
        meta = dict(self._connection.execute("SELECT key, value FROM meta"))
        row = ("checksum", _checksum(meta[key] for key in _META))
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    def _upgrade(self) -> None:
        """Give checksums to the rows of a journal from before there were any."""
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        run("ALTER TABLE trials ADD COLUMN checksum TEXT")
        for row in run(f"SELECT {_COLUMNS} FROM trials").fetchall():
            run("UPDATE trials SET checksum = ? WHERE number = ?", (_checksum(row), row[0]))
        self._check_meta()
        run(f"PRAGMA user_version = {SCHEMA}")
        run("COMMIT")


def read_journal(path: Path) -> JournalRecord:
    """What the journal at ``path`` holds, finished or not; the file is only read.

    Raises ``RunError`` where there is none, or for one that is damaged, foreign, or of another
    schema.
    """
    if not path.is_file():
        raise RunError(f"no journal at {path}, expected the file of a search")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with _one_line(path), closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        return _read(connection, path)


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(tables == 0 and _pragma(connection, "application_id") == 0)


def _read(connection: sqlite3.Connection, path: Path | None) -> JournalRecord:
    if _pragma(connection, "application_id") != _APPLICATION:
        raise RunError(f"{path} is not a journal of lcprune, expected one or a new file")
    version = _pragma(connection, "user_version")
    if version not in (_UNCHECKED, SCHEMA):
        raise RunError(f"journal {path} has schema {version}, expected {SCHEMA}")
    try:
        if _pragma(connection, "quick_check") != "ok":
            raise ValueError("expected a whole SQLite file")
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        rows = connection.execute(f"SELECT {_COLUMNS} FROM trials ORDER BY number").fetchall()
        if version == SCHEMA:
            found = connection.execute("SELECT checksum FROM trials ORDER BY number").fetchall()
            _compare(meta["checksum"], _checksum(meta[key] for key in _META))
            for row, (checksum,) in zip(rows, found, strict=True):
                _compare(checksum, _checksum(row))
        elif "checksum" in meta:
            raise ValueError("expected no checksums")
        if [row[0] for row in rows] != list(range(len(rows))):
            raise ValueError(f"expected trials 0 … {len(rows) - 1}")
        return JournalRecord(
            identity=json.loads(meta["identity"]),
            saliency=np.frombuffer(meta["saliency"], dtype="<f8").astype(np.float64),
            trials=tuple(_trial(row) for row in rows),
            total=int(meta["total"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        why = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise RunError(
            f"journal {path} is damaged: {why}{one_line(error, 160)};"
            " remove it to search from the start"
        ) from error


def _checksum(values: Iterable[Any]) -> str:
    """Of what a row holds, in the types that SQLite gives back."""
    plain = [value.hex() if isinstance(value, bytes) else value for value in values]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _compare(stored: Any, expected: str) -> None:
    if stored != expected:
        raise ValueError("a checksum differs")


def _trial(row: tuple[Any, ...]) -> Trial:
    number, latent, origin, parent, loss, digest, cost, timing, same_as = row
    return Trial(
        number=number,
        latent=tuple(tuple(map(float, values)) for values in json.loads(latent)),
        origin=origin,
        parent=parent,
        loss=float(loss),
        digest=digest,
        cost=json.loads(cost),
        timing=json.loads(timing),
        same_as=same_as,
    )


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@contextmanager
def _one_line(path: Path | None) -> Iterator[None]:
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
