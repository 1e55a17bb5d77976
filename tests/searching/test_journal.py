import math
import os
import random
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.errors import RunError
from lcprune.searching import Ask, Candidate, Journal, JournalRecord, Trial, read_journal

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
        (altered("DROP TABLE trials"), "no such table"),
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
    for path in (tmp_path / "absent" / "search.sqlite", tmp_path):
        with pytest.raises(RunError, match="can't be used"):
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
