"""Every finished trial, on disk before the next begins."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from lcprune.errors import RunError
from lcprune.graph import FloatArray
from lcprune.searching._journal_lock import JournalLock
from lcprune.searching._journal_rows import (
    APPLICATION,
    ASK_COLUMNS,
    META,
    SCHEMA,
    TRIAL_COLUMNS,
    UNCHECKED,
    Ask,
    JournalRecord,
    ask_row,
    checksum,
    in_one_line,
    pragma,
    read_record,
    trial_row,
)
from lcprune.searching._trial import Trial

_ASKS = """CREATE TABLE asks (
    number INTEGER PRIMARY KEY,
    latent TEXT NOT NULL,
    origin TEXT NOT NULL,
    parent INTEGER,
    asked_after INTEGER NOT NULL,
    checksum TEXT NOT NULL
)"""
_TABLES = f"""
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
    checksum TEXT,
    position INTEGER,
    asked_after INTEGER
);
{_ASKS};
"""


class Journal:
    """A search's memory in an SQLite file; ``path`` none keeps it in memory.

    A file that is absent or empty is begun in one transaction; an existing one is read into
    ``record``, which holds what the file says, not what was given. It stays in SQLite's
    rollback mode throughout, so that a copy is a single file that opens read-only.

    Trials are kept in the order in which they were told, each with how many had been told when
    it was asked for; what is in flight is kept apart until it is told.

    Raises ``RunError`` for a file that is damaged, foreign, of another schema, held by another
    process (which it names), or can't be written.

    Example:
        with Journal(path, identity, saliency.values, total=400) as journal:
            for trial in trials[len(journal.record.trials) :]:
                journal.commit(trial)
    """

    def __init__(
        self, path: Path | None, identity: Mapping[str, Any], saliency: FloatArray, total: int
    ) -> None:
        self._path = path
        self._lock = None if path is None else JournalLock(path.resolve())
        try:
            with in_one_line(path):
                self._connection = sqlite3.connect(
                    ":memory:" if path is None else path, isolation_level=None, timeout=30
                )
        except BaseException:
            self._release()
            raise
        try:
            with in_one_line(path):
                self._connection.execute("PRAGMA synchronous = FULL")
                if _is_empty(self._connection):
                    self._begin(identity, saliency, total)
                self.record = read_record(self._connection, path)
                version = pragma(self._connection, "user_version")
                if version != SCHEMA:
                    self._upgrade(version)
            self._told = len(self.record.trials)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def extend(self, total: int) -> None:
        """Note that another number of trials is asked for."""
        with self._transaction() as run:
            run("UPDATE meta SET value = ? WHERE key = 'total'", (total,))
            self._check_meta()

    def ask(self, ask: Ask) -> None:
        """Write down what is begun while others are in flight; when this returns it is on disk."""
        row = ask_row(ask)
        with self._transaction() as run:
            run(f"INSERT INTO asks ({ASK_COLUMNS}, checksum) VALUES ({_marks(row)})", _sealed(row))

    def commit(self, trial: Trial) -> None:
        """Write a trial, which is in flight no more; when this returns it is on disk."""
        row = trial_row(trial, self._told)
        try:
            with self._transaction() as run:
                insert = f"INSERT INTO trials ({TRIAL_COLUMNS}, checksum) VALUES ({_marks(row)})"
                run(insert, _sealed(row))
                run("DELETE FROM asks WHERE number = ?", (trial.number,))
        except RunError as error:
            if not isinstance(error.__cause__, sqlite3.IntegrityError):
                raise
            raise RunError(
                f"journal {self._path} has trial {trial.number} already:"
                " another search writes to it, expected one at a time"
            ) from error
        self._told += 1

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
            for statement in _TABLES.split(";"):
                run(statement)
            for row in values.items():
                run("INSERT INTO meta VALUES (?, ?)", row)
            self._check_meta()

    def _check_meta(self) -> None:
        """Write the checksum of what is not a trial."""
        meta = dict(self._connection.execute("SELECT key, value FROM meta"))
        row = ("checksum", checksum(meta[key] for key in META))
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    def _upgrade(self, version: int) -> None:
        """Give an older journal the columns and the checksums that it lacks."""
        with self._transaction() as run:
            added = ["position INTEGER", "asked_after INTEGER"]
            for column in ["checksum TEXT", *added] if version == UNCHECKED else added:
                run(f"ALTER TABLE trials ADD COLUMN {column}")
            run("UPDATE trials SET position = number")
            for row in run(f"SELECT {TRIAL_COLUMNS} FROM trials").fetchall():
                run("UPDATE trials SET checksum = ? WHERE number = ?", (checksum(row), row[0]))
            run(_ASKS)
            self._check_meta()
            run(f"PRAGMA user_version = {SCHEMA}")

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """All that is run inside, or nothing."""
        with in_one_line(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _close(self) -> None:
        self._connection.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def read_journal(path: Path) -> JournalRecord:
    """What the journal at ``path`` holds, finished or not; the file is only read.

    Raises ``RunError`` where there is none, or for one that is damaged, foreign, or of another
    schema.
    """
    if not path.is_file():
        raise RunError(f"no journal at {path}, expected the file of a search")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with in_one_line(path), closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        return read_record(connection, path)


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(tables == 0 and pragma(connection, "application_id") == 0)


def _sealed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row, checksum(row))


def _marks(row: tuple[Any, ...]) -> str:
    return ",".join("?" * (len(row) + 1))
