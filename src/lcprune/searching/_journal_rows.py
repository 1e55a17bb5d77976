"""Trials as the rows of a journal, and back."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcprune._factory import one_line
from lcprune.errors import RunError
from lcprune.graph import FloatArray
from lcprune.searching._strategy import Candidate
from lcprune.searching._trial import Trial

SCHEMA = 3
IN_ORDER = 2
"""The schema from before several trials could be in flight."""
UNCHECKED = 1
"""The schema from before rows had checksums. Older ones are read as they are, and written to
only once they have become the newest."""
APPLICATION = 0x6C637072  # "lcpr": marks an SQLite file as ours
META = ("identity", "saliency", "total")
FIRST_COLUMNS = "number, latent, origin, parent, loss, digest, cost, timing, same_as"
TRIAL_COLUMNS = f"{FIRST_COLUMNS}, position, asked_after"
ASK_COLUMNS = "number, latent, origin, parent, asked_after"


@dataclass(frozen=True, eq=False)
class Ask:
    """A candidate that was asked for when ``after`` trials had been told, and is not told yet."""

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


def trial_row(trial: Trial, position: int) -> tuple[Any, ...]:
    """The columns of a trial, told as the one at ``position``."""
    return (
        trial.number,
        json.dumps(trial.latent),
        trial.origin,
        trial.parent,
        float(trial.loss),
        trial.digest,
        json.dumps(dict(trial.cost)),
        json.dumps(dict(trial.timing)),
        trial.same_as,
        position,
        trial.asked_after,
    )


def ask_row(ask: Ask) -> tuple[Any, ...]:
    """The columns of what is in flight."""
    candidate = ask.candidate
    latent = json.dumps(candidate.latent.tolist())
    return (candidate.number, latent, candidate.origin, candidate.parent, ask.after)


def checksum(values: Iterable[Any]) -> str:
    """Of what a row holds, in the types that SQLite gives back."""
    plain = [value.hex() if isinstance(value, bytes) else value for value in values]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def read_record(connection: sqlite3.Connection, path: Path | None) -> JournalRecord:
    """All that the file says; ``RunError`` where it is no whole journal."""
    if pragma(connection, "application_id") != APPLICATION:
        raise RunError(f"{path} is not a journal of lcprune, expected one or a new file")
    version = pragma(connection, "user_version")
    if version not in (UNCHECKED, IN_ORDER, SCHEMA):
        raise RunError(f"journal {path} has schema {version}, expected {SCHEMA}")
    try:
        if pragma(connection, "quick_check") != "ok":
            raise ValueError("expected a whole SQLite file")
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        if version != UNCHECKED:
            _compare(meta["checksum"], checksum(meta[key] for key in META))
        elif "checksum" in meta:
            raise ValueError("expected no checksums")
        trials = tuple(_trials(connection, version))
        in_flight = tuple(_in_flight(connection)) if version == SCHEMA else ()
        numbers = {t.number for t in trials} | {a.candidate.number for a in in_flight}
        asked = len(trials) + len(in_flight)
        if numbers != set(range(asked)):
            raise ValueError(f"expected trials 0 … {asked - 1}")
        return JournalRecord(
            identity=json.loads(meta["identity"]),
            saliency=np.frombuffer(meta["saliency"], dtype="<f8").astype(np.float64),
            trials=trials,
            total=int(meta["total"]),
            in_flight=in_flight,
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        why = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise RunError(
            f"journal {path} is damaged: {why}{one_line(error, 160)};"
            " remove it to search from the start"
        ) from error


def _trials(connection: sqlite3.Connection, version: int) -> Iterator[Trial]:
    columns = TRIAL_COLUMNS if version == SCHEMA else f"{FIRST_COLUMNS}, number, NULL"
    order = "position" if version == SCHEMA else "number"
    checked = 11 if version == SCHEMA else 9
    stored = "NULL" if version == UNCHECKED else "checksum"
    rows = connection.execute(f"SELECT {columns}, {stored} FROM trials ORDER BY {order}").fetchall()
    for *row, found in rows:
        if version != UNCHECKED:
            _compare(found, checksum(row[:checked]))
    if [row[9] for row in rows] != list(range(len(rows))):
        raise ValueError(f"expected trials 0 … {len(rows) - 1}")
    for number, latent, origin, parent, loss, digest, cost, timing, same_as, _, after, _ in rows:
        yield Trial(
            number=number,
            latent=tuple(tuple(map(float, values)) for values in json.loads(latent)),
            origin=origin,
            parent=parent,
            loss=float(loss),
            digest=digest,
            cost=json.loads(cost),
            timing=json.loads(timing),
            same_as=same_as,
            asked_after=after,
        )


def _in_flight(connection: sqlite3.Connection) -> Iterator[Ask]:
    rows = connection.execute(f"SELECT {ASK_COLUMNS}, checksum FROM asks ORDER BY number")
    for *row, found in rows.fetchall():
        _compare(found, checksum(row))
        number, latent, origin, parent, after = row
        values = np.array(json.loads(latent), dtype=np.float64)
        yield Ask(Candidate(number, values, origin, parent), int(after))


def _compare(stored: Any, expected: str) -> None:
    if stored != expected:
        raise ValueError("a checksum differs")


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@contextmanager
def in_one_line(path: Path | None) -> Iterator[None]:
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
