"""Who holds a lock is told, and never asked once it is gone."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lcprune._lock import check_unlocked, locked
from lcprune.errors import RunError

fcntl = pytest.importorskip("fcntl", reason="no advisory locks on this system")

HOLD = """
import sys
from pathlib import Path
from lcprune._lock import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".run.lock"


def refusal(path: Path) -> str:
    with pytest.raises(RunError) as caught, locked(path, "it"):
        pass
    with pytest.raises(RunError) as looked:
        check_unlocked(path, "it")
    assert str(looked.value) == str(caught.value)
    return str(caught.value)


def holding(path: Path) -> int:
    """The lock, without a word of who has it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_second_is_told_of_the_first(path: Path) -> None:
    with locked(path, "it"):
        since = json.loads(path.read_text())["since"]
        told = refusal(path)
        assert told == (
            f"it is held by process {os.getpid()} on {socket.gethostname()}, since {since}"
        )
        # The second did not take away what the first says.
        assert refusal(path) == told
    assert list(path.parent.iterdir()) == []


def test_a_thread_is_a_second_too(path: Path) -> None:
    told: list[str] = []
    with locked(path, "it"):
        thread = threading.Thread(target=lambda: told.append(refusal(path)))
        thread.start()
        thread.join()
    assert told[0].startswith(f"it is held by process {os.getpid()}")


def test_looking_creates_nothing_and_keeps_nobody_out(path: Path) -> None:
    check_unlocked(path, "it")
    check_unlocked(path.parent / "not there" / "lock", "it")
    assert list(path.parent.iterdir()) == []
    path.write_text("left behind")
    check_unlocked(path, "it")
    with locked(path, "it"):
        pass


def test_a_process_that_is_killed_holds_nothing(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert f"process {process.pid} on" in refusal(path)
        process.send_signal(signal.SIGKILL)
    left = path.read_text()
    check_unlocked(path, "it")
    with locked(path, "it"):
        assert path.read_text() != left
    assert not path.exists()


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
def test_what_can_not_be_right_is_not_told(path: Path, content: str) -> None:
    if content == "dead":
        content = json.dumps({"pid": gone(), "host": socket.gethostname(), "since": "long ago"})
    path.write_bytes(content.encode(errors="surrogateescape"))
    descriptor = holding(path)
    try:
        assert refusal(path) == "it is held by another process"
    finally:
        os.close(descriptor)


def test_a_process_on_another_host_is_told_unasked(path: Path) -> None:
    path.write_text(json.dumps({"pid": gone(), "host": "far", "since": "today"}))
    descriptor = holding(path)
    try:
        assert refusal(path).endswith(" on far, since today")
    finally:
        os.close(descriptor)


def test_a_forked_child_does_not_keep_the_lock(path: Path) -> None:
    """One that reads images lives on for seconds when the process that forked it is killed."""
    reading, writing = os.pipe()
    begun, begins = os.pipe()
    with locked(path, "it"):
        child = os.fork()
        if not child:
            os.close(writing)
            os.write(begins, b".")
            os.read(reading, 1)
            os._exit(0)
        os.read(begun, 1)
    try:
        with locked(path, "it"):
            pass
    finally:
        for descriptor in (writing, reading, begun, begins):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_the_lock_goes_with_an_error(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(path, "it"):
        _ = 1 / 0
    assert list(path.parent.iterdir()) == []
    with locked(path, "it"):
        pass


@pytest.mark.parametrize("what", ["link", "dangling", "directory", "pipe"])
def test_what_is_no_file_is_refused_and_left_alone(path: Path, what: str) -> None:
    theirs = path.parent / "thesis.tex"
    if what == "link":
        theirs.write_text("chapter one")
        path.symlink_to(theirs)
    elif what == "dangling":
        path.symlink_to(theirs)
    elif what == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    told = r"can't write .*\.lock: it is a link or no ordinary file"
    with pytest.raises(RunError, match=told), locked(path, "it"):
        pass
    assert theirs.exists() is (what == "link")
    if what == "link":
        assert theirs.read_text() == "chapter one"


def test_another_name_of_a_file_is_not_written_over(path: Path) -> None:
    theirs = path.parent / "thesis.tex"
    theirs.write_text("chapter one")
    path.hardlink_to(theirs)
    with locked(path, "it"):
        assert theirs.read_text() == "chapter one"
    assert theirs.read_text() == "chapter one"


def test_where_it_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't write"), locked(tmp_path / "file" / "lock", "it"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_goes_on_without(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(path, "it"), locked(path, "it"):
        check_unlocked(path, "it")
