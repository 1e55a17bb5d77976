"""Files with checksums, changed and sealed again, so that the change is what is met."""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from fuzzing.hostile import DEEP_JSON, JSON_VALUES, deep_list

CHECKSUM = "checksum"
SEAL = b"\nlcprune sha256 "


def seal_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file with the checksum that lcprune would give it."""
    values.pop(CHECKSUM, None)
    text = json.dumps(values).replace(json.dumps(DEEP_JSON), deep_list(900))
    try:
        read = json.loads(text)
        digest = hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()
    except (ValueError, RecursionError):
        digest = "0" * 64
    path.write_text(f'{text[:-1]}, "{CHECKSUM}": "{digest}"}}')


def read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reseal(folder: Path) -> None:
    """Make every checksum of a saved network, and of the run around it, right again."""
    artifact, run = folder / "artifact.json", folder / "run.json"
    if artifact.is_file():
        values = read_json(artifact)
        hashes = values.get("sha256")
        if isinstance(hashes, dict):
            for name in hashes:
                if (folder / name).is_file():
                    hashes[name] = sha256(folder / name)
        seal_json(artifact, values)
    if run.is_file():
        values = read_json(run)
        state = values.get("state")
        hashes = state.get("results_sha256") if isinstance(state, dict) else None
        if isinstance(hashes, dict):
            for name in hashes:
                if (folder / name).is_file():
                    hashes[name] = sha256(folder / name)
        seal_json(run, values)


def seal_bytes(path: Path, content: bytes) -> None:
    """Write a checkpoint with the checksum at its end."""
    path.write_bytes(content + SEAL + hashlib.sha256(content).hexdigest().encode())


def unsealed(path: Path) -> bytes:
    """The contents of a checkpoint."""
    return path.read_bytes()[: -len(SEAL) - 64]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in JSON values, the outer ones first."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:3]):
            yield from places(inner, (*path, index))


def changed_place(values: dict[str, Any], chance: random.Random) -> str:
    """Change one place of JSON values, in place; what was done, in words."""
    found = [p for p in places(values) if p != (CHECKSUM,)]
    depth = chance.randrange(1, 1 + max(map(len, found)))
    path = chance.choice([p for p in found if len(p) <= depth])
    holder: Any = values
    for key in path[:-1]:
        holder = holder[key]
    where = ".".join(map(str, path))
    kind = chance.random()
    if kind < 0.12:
        del holder[path[-1]]
        return f"{where} removed"
    if kind < 0.2 and isinstance(holder, dict):
        key = chance.choice(("x", "", "\x1b[31mred", "[/b]", "__class__", "x" * 10_000, "\ud800"))
        holder[key] = chance.choice(JSON_VALUES)
        return f"{key[:20]!r} beside {where}"
    if kind < 0.25:
        holder[path[-1]] = DEEP_JSON
        return f"{where} is nested by the hundred"
    old = holder[path[-1]]
    if kind < 0.4 and isinstance(old, int | float) and not isinstance(old, bool):
        holder[path[-1]] = chance.choice((old + 1, -old, old * 10**20, old + 0.5, str(old), [old]))
    elif kind < 0.4 and isinstance(old, list) and old:
        holder[path[-1]] = chance.choice((old[:-1], old[::-1], [*old, old[0]], [old], old * 50))
    else:
        holder[path[-1]] = chance.choice(JSON_VALUES)
    return f"{where} is {str(holder[path[-1]])[:40]!r}"


def change_journal(path: Path, chance: random.Random) -> str:
    """Change a cell of a journal, and give its row the right checksum; what was done, in words."""
    with closing(sqlite3.connect(path)) as connection:
        kind = chance.random()
        if kind < 0.15:
            return _change_schema(connection, chance)
        if kind < 0.3:
            key = chance.choice(("identity", "saliency", "total"))
            value = _cell(chance)
            connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            digest = row_checksum(meta[k] for k in ("identity", "saliency", "total"))
            connection.execute("UPDATE meta SET value = ? WHERE key = 'checksum'", (digest,))
            connection.commit()
            return f"meta.{key} is {str(value)[:40]!r}"
        columns = [row[1] for row in connection.execute("PRAGMA table_info(trials)")]
        columns.remove(CHECKSUM)
        old_order = [
            "number", "latent", "origin", "parent", "loss", "digest", "cost", "timing", "same_as",
            "position", "asked_after",
        ]  # fmt: skip
        orders = [columns] + ([old_order] if set(old_order) <= set(columns) else [])
        rows = list(connection.execute("SELECT rowid FROM trials"))
        if not rows:
            return "nothing: no trials"
        (number,) = chance.choice(rows)
        column, value = chance.choice(columns), _cell(chance)
        order = next((o for o in orders if _stored(connection, number, o)), columns)
        try:
            connection.execute(f"UPDATE trials SET {column} = ? WHERE rowid = ?", (value, number))
            if column == "number" and type(value) is int:
                number = value
            cells = connection.execute(
                f"SELECT {', '.join(order)} FROM trials WHERE rowid = ?", (number,)
            ).fetchone()
            connection.execute(
                "UPDATE trials SET checksum = ? WHERE rowid = ?", (row_checksum(cells), number)
            )
        except (sqlite3.Error, OverflowError, TypeError):
            connection.rollback()
            connection.execute(f"UPDATE trials SET {column} = 'x' WHERE rowid = ?", (number,))
            value = "x without a checksum"
        connection.commit()
        return f"trials.{column} of {number} is {str(value)[:40]!r}"


def _stored(connection: sqlite3.Connection, number: int, order: list[str]) -> bool:
    *cells, stored = connection.execute(
        f"SELECT {', '.join(order)}, checksum FROM trials WHERE rowid = ?", (number,)
    ).fetchone()
    return bool(row_checksum(cells) == stored)


def _cell(chance: random.Random) -> Any:
    return chance.choice((
        0, -1, 1, 2**62, 0.5, 1e300, float("inf"), "", "x", "{}", "[]", "null", "NaN", "Infinity",
        "[NaN]", "[[1e400]]", '{"macs": "x"}', '{"macs": -1}', '{"\\u001b[31m": 1}', deep_list(900),
        b"", b"\x00", b"\xff" * 8, b"x" * 10_000, "\x1b[31mred", "ff", "zz", "00" * 500, "x" * 10_000,
        "[/b]", '"x"', "1e999", '{"beta": [1e999]}', "\u202e", '{"beta": "x"}', '{"parent": 99999}',
    ))  # fmt: skip


def _change_schema(connection: sqlite3.Connection, chance: random.Random) -> str:
    statement = chance.choice((
        "PRAGMA user_version = 0", "PRAGMA user_version = 2", "PRAGMA user_version = 99",
        "PRAGMA application_id = 0", "DROP TABLE trials", "DROP TABLE asks", "DROP TABLE meta",
        "DELETE FROM meta", "DELETE FROM trials WHERE number = 0", "DELETE FROM trials",
        "ALTER TABLE trials RENAME COLUMN loss TO los", "ALTER TABLE trials ADD COLUMN x",
        "CREATE TABLE x (y)", "CREATE VIEW x AS SELECT * FROM trials", "DELETE FROM meta WHERE key = 'total'",
        "INSERT INTO meta VALUES ('x', 1)", "UPDATE trials SET checksum = NULL", "PRAGMA journal_mode = WAL",
        "CREATE TRIGGER t BEFORE INSERT ON trials BEGIN SELECT RAISE(ABORT, 'x'); END",
        "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials; END",
        "DROP TABLE trials; CREATE VIEW trials AS SELECT 1",
    ))  # fmt: skip
    connection.executescript(statement)
    connection.commit()
    return statement


def row_checksum(values: Any) -> str:
    """As the journal has it."""
    plain = [value.hex() if isinstance(value, bytes) else value for value in values]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()
