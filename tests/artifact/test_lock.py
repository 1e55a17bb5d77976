"""Who is at work in a run directory is told, and never asked once it is gone."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from lcprune.artifact import PARTIAL, RunRecord, RunState, begin_run, check_run, locked
from lcprune.artifact._lock import HOLDER
from lcprune.errors import RunError

fcntl = pytest.importorskip("fcntl", reason="no advisory locks on this system")


def refusal(directory: Path) -> str:
    with pytest.raises(RunError) as caught, locked(directory):
        pass
    return str(caught.value)


def holding(directory: Path) -> int:
    """The lock, without a word of who has it."""
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def gone() -> int:
    """The number of a process that has ended."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_the_second_is_told_of_the_first(tmp_path: Path) -> None:
    with locked(tmp_path):
        since = json.loads((tmp_path / HOLDER).read_text())["since"]
        told = refusal(tmp_path)
        assert told == (
            f"another process is at work in {tmp_path}: process {os.getpid()} "
            f"on {socket.gethostname()}, since {since}"
        )
        # The second did not take away what the first says.
        assert refusal(tmp_path) == told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"force": True}])
def test_a_run_is_refused_before_anything_is_loaded_for_it(
    tmp_path: Path, how: dict[str, bool]
) -> None:
    assert check_run(tmp_path / "not there", **how) is RunState.EMPTY
    with locked(tmp_path):
        told = refusal(tmp_path)
        with pytest.raises(RunError) as caught:
            check_run(tmp_path, **how)
    assert str(caught.value) == told
    assert check_run(tmp_path, **how) is RunState.EMPTY
    with locked(tmp_path):  # whoever only looked has gone
        pass


def test_what_a_killed_process_left_never_keeps_out(tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_text(
        json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": "long ago"})
    )
    with locked(tmp_path):
        assert "long ago" not in (tmp_path / HOLDER).read_text()
    assert not (tmp_path / HOLDER).exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"pid": 1}',
        '{"pid": "x", "host": "h", "since": "s"}',
        "[" * 900,
        "\udcff",
        "dead",
    ],
)
def test_what_can_not_be_right_is_not_told(tmp_path: Path, content: str) -> None:
    if content == "dead":
        content = json.dumps({"pid": gone(), "host": socket.gethostname(), "since": "long ago"})
    (tmp_path / HOLDER).write_bytes(content.encode(errors="surrogateescape"))
    descriptor = holding(tmp_path)
    try:
        assert refusal(tmp_path) == f"another process is at work in {tmp_path}"
    finally:
        os.close(descriptor)


def test_a_process_on_another_host_is_told_unasked(tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_text(json.dumps({"pid": gone(), "host": "far", "since": "today"}))
    descriptor = holding(tmp_path)
    try:
        assert refusal(tmp_path).endswith(" on far, since today")
    finally:
        os.close(descriptor)


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """One that reads images lives on for seconds when the process that forked it is killed."""
    reading, writing = os.pipe()
    begun, begins = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if not child:
            os.close(writing)
            os.write(begins, b".")
            os.read(reading, 1)
            os._exit(0)
        os.read(begun, 1)
    try:
        with locked(tmp_path):
            pass
    finally:
        for descriptor in (writing, reading, begun, begins):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_the_lock_goes_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_had_begun_to_write_is_removed(tmp_path: Path) -> None:
    begin_run(tmp_path, RunRecord("prune", {}))
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / f"{PARTIAL}7-0-model.safetensors").write_text("half")
    with locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == before | {HOLDER}


def test_only_in_a_run(tmp_path: Path) -> None:
    theirs = tmp_path / f"{PARTIAL}7-0-thesis.tex"
    theirs.write_text("half")
    with locked(tmp_path):
        assert theirs.exists()


def test_a_directory_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't write"), locked(tmp_path / "file" / "out"):
        pass
