import math
import os
import random
import shutil
import socket
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune._lock import LOCK
from lcprune.errors import InputError, LcpruneWarning, RunError
from lcprune.searching import Ask, Candidate, Journal, JournalRecord, Trial, _journal, read_journal

IDENTITY = {"seed": 3, "budget": {"macs": 100}, "environment": {"precision": "bfloat16"}}
SALIENCY = np.array([0.1, 1 / 3, 2.0])


def trial(number: int, loss: float = 0.5) -> Trial:
    return Trial(
        number=number,
        keep=np.array([number & 4, number & 2, number & 1]) > 0,
        loss=loss,
        digest=f"{number:064x}",
        cost={"macs": 2**40, "params": 7},
        share=0.25 if number % 3 else 1.0,
        final=number % 3 == 0,
        note={"latent": [[0.1 + number, 1 / 3], [-1e-300, math.pi]], "origin": "child ü"},
        timing={"plan": 0.001, "fitness": 0.25},
        reference=number == 2,
        seconds=0.1 * number,
    )


def begin(path: Path | None, total: int = 9) -> Journal:
    return Journal(path, IDENTITY, SALIENCY, total)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    trials = (trial(0), trial(1, math.inf), trial(2, 1e-17))
    with begin(path) as journal:
        assert journal.record.trials == ()
        for one in trials:
            journal.commit(one)
    record = read_journal(path)
    assert record.trials == trials
    for name in ("timing", "seconds"):
        assert [getattr(one, name) for one in record.trials] == [getattr(t, name) for t in trials]
    assert [one.keep.tolist() for one in record.trials] == [one.keep.tolist() for one in trials]
    assert record.identity == IDENTITY
    assert record.saliency.tolist() == SALIENCY.tolist()
    assert record.total == 9


def test_reopening_says_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    with begin(path) as journal:
        journal.commit(trial(0))
    with Journal(path, {"seed": 4}, SALIENCY + 1, 12) as journal:
        assert journal.record.identity == IDENTITY
        assert journal.record.saliency.tolist() == SALIENCY.tolist()
        assert journal.record.total == 9
        journal.extend(12)
        journal.commit(trial(1))
    assert read_journal(path).total == 12
    assert len(read_journal(path).trials) == 2


def test_a_trial_is_on_disk_as_soon_as_it_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    with begin(path) as journal:
        for number in range(3):
            journal.commit(trial(number))
            copy = tmp_path / "copy.sqlite"
            shutil.copy(path, copy)
            assert len(read_journal(copy).trials) == number + 1
            assert list(tmp_path.glob("search.sqlite-*")) == []


def test_a_copy_that_can_not_be_written_opens(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    with begin(path) as journal:
        journal.commit(trial(0))
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert len(read_journal(path).trials) == 1
        with sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    finally:
        tmp_path.chmod(0o755)


def test_in_memory_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with begin(None) as journal:
        journal.commit(trial(0))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    path.touch()
    with begin(path) as journal:
        assert journal.record.trials == ()


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as one" * 30)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE meta (key, value)")
    connection.close()


def truncated(path: Path) -> None:
    with begin(path) as journal:
        for number in range(40):
            journal.commit(trial(number))
    path.write_bytes(path.read_bytes()[:-4096])


def scrambled(path: Path) -> None:
    with begin(path) as journal:
        for number in range(40):
            journal.commit(trial(number))
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)


def altered(statement: str) -> object:
    def alter(path: Path) -> None:
        with begin(path) as journal:
            for number in range(3):
                journal.commit(trial(number))
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()

    return alter


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (garbage, "not a database"),
        (foreign, "not a journal of lcprune"),
        (truncated, "damaged|malformed"),
        (scrambled, "damaged|malformed"),
        (altered("PRAGMA user_version = 7"), "schema 7, expected 1"),
        (altered("DELETE FROM trials WHERE number = 1"), "the order in which they finished"),
        (altered("DELETE FROM meta WHERE key = 'identity'"), "damaged.*identity"),
        (altered("UPDATE trials SET note = '[1' WHERE number = 1"), "a checksum differs"),
        (altered("UPDATE trials SET keep = '40' WHERE number = 1"), "a checksum differs"),
        (altered("ALTER TABLE trials DROP COLUMN checksum"), "damaged"),
        (altered("UPDATE meta SET value = x'00' WHERE key = 'saliency'"), "damaged"),
        (altered("DROP TABLE trials"), "expected 3 tables"),
        (altered("UPDATE trials SET loss = 0.25 WHERE number = 1"), "a checksum differs"),
        (altered("UPDATE trials SET digest = x'ff' WHERE number = 1"), "a checksum differs"),
        (altered("UPDATE meta SET value = 10 WHERE key = 'total'"), "a checksum differs"),
        (altered("DELETE FROM meta WHERE key = 'checksum'"), "damaged.*checksum"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_file_that_is_no_whole_journal_is_refused_and_left_alone(
    tmp_path: Path, spoil: object, part: str
) -> None:
    path = tmp_path / "search.sqlite"
    spoil(path)  # type: ignore[operator]
    content = path.read_bytes()
    for opened in (begin, read_journal):
        with pytest.raises(RunError, match=part) as caught:
            opened(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_place_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "search.sqlite", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(RunError, match=r"can't (be used|write)"):
            begin(path)
    with pytest.raises(RunError, match="no journal"):
        read_journal(tmp_path / "absent.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_two_searches_do_not_share_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    with begin(path) as one:
        with pytest.raises(RunError, match=f"held by process {os.getpid()} on .*, since 20.* UTC"):
            begin(path)
        one.commit(trial(0))
        assert len(read_journal(path).trials) == 1
    with begin(path) as other:
        other.commit(trial(1))
    assert list(tmp_path.iterdir()) == [path]


def test_no_flipped_byte_goes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    with begin(path) as journal:
        for number in range(12):
            journal.commit(trial(number))
    content, whole = path.read_bytes(), read_journal(path)
    used = [place for place, byte in enumerate(content) if byte]
    generator = random.Random(0)
    errors = []
    for place in generator.sample(used, 200):
        damaged = bytearray(content)
        damaged[place] ^= generator.randrange(1, 256)
        for opened in (read_journal, recorded):
            path.write_bytes(damaged)
            try:
                found = opened(path)
            except RunError as error:
                errors.append(str(error))
                continue
            assert found.trials == whole.trials
            assert found.identity == whole.identity
            assert found.saliency.tolist() == whole.saliency.tolist()
            assert found.total == whole.total
    assert len(errors) > 200
    assert all(str(path) in error and "\n" not in error for error in errors)


def recorded(path: Path) -> JournalRecord:
    with begin(path) as journal:
        return journal.record


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_masks_of_any_length(bits: list[bool]) -> None:
    keep = np.array(bits)
    asked = Ask(Candidate(1, keep, 0.5, False, {"a": [1]}), 1)
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "search.sqlite"
        with Journal(path, IDENTITY, np.zeros(len(bits)), 2) as journal:
            journal.commit(replace(trial(0), keep=keep))
            journal.ask(asked)
        record = read_journal(path)
    (found,) = record.in_flight
    assert record.trials[0].keep.tolist() == found.candidate.keep.tolist() == bits
    assert (found.after, found.candidate.share, found.candidate.final) == (1, 0.5, False)
    assert found.candidate.note == {"a": [1]}


class _OwnPath(os.PathLike[str]):
    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.mark.parametrize("kind", [str, Path, _OwnPath])
def test_a_path_may_be_text_or_like_a_path(tmp_path: Path, kind: Any) -> None:
    path = kind(tmp_path / "search.sqlite")
    with begin(path) as journal:
        journal.commit(trial(0))
    assert len(read_journal(path).trials) == 1


@pytest.mark.parametrize("path", [3, b"search.sqlite", "", "a\0b", "~nosuchuser/x", True])
def test_what_is_no_path_is_told(tmp_path: Path, path: Any) -> None:
    for use in (begin, read_journal):
        with pytest.raises(InputError, match=r"journal is .*, expected a path"):
            use(path)


SUFFIXES = ("", "-journal", "-wal", "-shm")


@pytest.mark.parametrize("suffix", [*SUFFIXES, LOCK])
def test_no_link_is_written_through(tmp_path: Path, suffix: str) -> None:
    """Neither the journal's, nor that of what SQLite writes beside it, nor its lock's."""
    theirs, path = tmp_path / "thesis.tex", tmp_path / "search.sqlite"
    name = path.name + suffix if suffix != LOCK else f".partial-{path.name}{LOCK}"
    for content in (None, "", "chapter one"):
        if content is not None:
            theirs.write_text(content)
        (tmp_path / name).symlink_to(theirs)
        with pytest.raises(RunError, match="it is a link or no ordinary file"):
            begin(path)
        assert (theirs.read_text() if theirs.exists() else None) == content
        (tmp_path / name).unlink()
    assert list(tmp_path.iterdir()) == [theirs]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("what", ["pipe", "socket", "directory", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, suffix: str, what: str) -> None:
    path = tmp_path / "search.sqlite"
    with begin(path):
        pass
    strange = tmp_path / f"{path.name}{suffix}"
    strange.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(strange)
    elif what == "directory":
        strange.mkdir()
    elif what == "device":
        strange.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(strange))
    for use in (begin, read_journal):
        with pytest.raises(RunError, match=r"can't (read|write)"):
            use(path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_journal, "_TRY", 0.0)


def reader(path: Path) -> sqlite3.Connection:
    """Holds a transaction that reads, as another program's."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM trials").fetchall()
    return connection


def writer(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("hold", [reader, writer])
def test_a_journal_that_others_use_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: Any
) -> None:
    """The wait is told once; it ends as soon as they do."""
    path = tmp_path / "search.sqlite"
    told: list[str] = []
    with begin(path) as journal:
        journal.commit(trial(0))
        other = hold(path)

        def tell(message: str, category: type[Warning], **_: object) -> None:
            assert category is LcpruneWarning
            told.append(message)
            other.close()

        monkeypatch.setattr("warnings.warn", tell)
        journal.commit(trial(1))
    assert told == [f"journal {path} is in use by another program: waiting for it"]
    assert [one.number for one in read_journal(path).trials] == [0, 1]
    other = writer(path)
    with begin(path) as journal:
        assert len(journal.record.trials) == 2
    assert len(told) == 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.filterwarnings("ignore:.*in use by another program")
def test_a_journal_that_others_never_let_go_is_told_and_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_journal, "_PATIENCE", 0.0)
    path = tmp_path / "search.sqlite"
    with begin(path) as journal:
        journal.commit(trial(0))
        with closing(reader(path)), pytest.raises(RunError, match="database is locked"):
            journal.commit(trial(1))
        journal.commit(trial(1))
    assert len(read_journal(path).trials) == 2


def resealed(path: Path, table: str, column: str, value: object, number: int = 1) -> None:
    """Put another value into a row and the right checksum beside it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if table == "meta":
            connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, column))
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            row = [meta[key] for key in ("identity", "saliency", "total")]
            where = "UPDATE meta SET value = ? WHERE key = 'checksum'"
        else:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE number = {number}", (value,))
            number = value if column == "number" else number  # type: ignore[assignment]
            question = f"SELECT * FROM {table} WHERE number = ?"
            *row, _ = connection.execute(question, (number,)).fetchone()
            where = f"UPDATE {table} SET checksum = ? WHERE number = {number!r}"
        connection.execute(where, (_journal._checksum(row),))


HUGE = "9" * 400
WRONG: dict[str, list[object]] = {
    "number": [-1, 2**62],
    "keep": ["", "zz", "40" * 9, b"\x40", 3],
    "share": [-1.0, 1e300, math.inf, "much", b""],
    "final": [2, "yes", 0.5],
    "reference": [-1, b"", 2**62],
    "note": ["", "3", "[]", "[" * 5000, '{"latent": 3}', '{"latent": [["x"]]}',
             f'{{"latent": [[{HUGE}]]}}', '{"latent": [[NaN]]}', 3],
    "asked_after": [-1, "x", 0.5],
    "position": [-1, 7, "x"],
    "loss": ["low", b""],
    "digest": [b""],
    "cost": ["3", '{"macs": "many"}', f'{{"macs": {HUGE}}}', '{"macs": 0.5}', '{"macs": NaN}', "{"],
    "timing": ["[]", '{"plan": "long"}', '{"plan": Infinity}'],
    "seconds": [-1.0, "x", math.inf],
    "same_as": [-1, "x", 0.5],
}  # fmt: skip


@pytest.mark.parametrize("column", WRONG)
def test_a_row_of_wrong_types_is_refused_though_its_checksum_is_right(
    tmp_path: Path, column: str
) -> None:
    path = tmp_path / "search.sqlite"
    with begin(path) as journal:
        for number in range(3):
            journal.commit(trial(number))
    content = path.read_bytes()
    for value in WRONG[column]:
        resealed(path, "trials", column, value)
        for use in (begin, read_journal):
            with pytest.raises(RunError, match="is damaged") as caught:
                use(path)
            assert str(caught.value).isprintable()
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("key", "value"),
    [("total", 0), ("total", "x"), ("total", 0.5), ("total", b""), ("saliency", b"1234567"),
     ("saliency", 3), ("saliency", ""), ("identity", "3"), ("identity", "[" * 5000),
     ("identity", ""), ("identity", 3)],
)  # fmt: skip
def test_a_head_of_wrong_types_is_refused_though_its_checksum_is_right(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "search.sqlite"
    with begin(path) as journal:
        journal.commit(trial(0))
    resealed(path, "meta", key, value)
    for use in (begin, read_journal):
        with pytest.raises(RunError, match="is damaged"):
            use(path)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE VIEW endless AS {ENDLESS}",
        "CREATE TRIGGER t AFTER INSERT ON trials "
        f"BEGIN INSERT INTO meta SELECT x, x FROM ({ENDLESS}); END",
        "CREATE TABLE more (x)",
        "CREATE INDEX i ON trials (loss)",
    ],
)
def test_a_file_with_more_than_our_tables_is_not_run(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "search.sqlite"
    altered(statement)(path)  # type: ignore[operator]
    for use in (begin, read_journal):
        with pytest.raises(RunError, match="expected 3 tables as lcprune makes them"):
            use(path)


def test_a_view_in_place_of_a_table_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    altered("DROP TABLE trials")(path)  # type: ignore[operator]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"CREATE VIEW trials AS {ENDLESS}")
    for use in (begin, read_journal):
        with pytest.raises(RunError, match="expected 3 tables as lcprune makes them"):
            use(path)


class _Stubborn:
    """A strategy for which the journal's trials are impossible."""

    settings: dict[str, Any] = {}  # noqa: RUF012

    def ask(self) -> Candidate:
        return Candidate(0, np.zeros(3, dtype=bool))

    def tell(self, candidate: Candidate, loss: float) -> None:
        raise IndexError("latent of another shape")


def test_trials_that_a_strategy_can_not_be_told_are_refused() -> None:
    record = JournalRecord(IDENTITY, SALIENCY, (trial(0),), 3)
    with pytest.raises(RunError, match=r"none of this search.*IndexError: latent of another shape"):
        record.replay(_Stubborn())
