"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from lcprune._files import (
    PARTIAL,
    check_own,
    open_regular,
    read_sealed,
    read_sealed_json,
    read_whole,
    replacing,
    sha256_of,
    write_sealed,
    write_text,
)
from lcprune.errors import InputError, RunError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.name.startswith(PARTIAL)
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_file_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't write") as caught:
        write_text(tmp_path / "file" / "below", "text")
    assert "\n" not in str(caught.value)


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert sha256_of(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_threads_that_write_the_same_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    together = threading.Barrier(2)

    def write(text: str) -> None:
        with replacing(path) as temporary:
            temporary.write_text(text)
            together.wait(timeout=10)

    writers = [threading.Thread(target=write, args=(text * 1000,)) for text in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256))])
def test_a_sealed_file_gives_its_content_or_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    write_sealed(path, content)
    assert read_sealed(path) == content
    raw = path.read_bytes()
    damaged = [
        raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :] for place in range(len(raw))
    ]
    for text in (*damaged, *(raw[:length] for length in range(len(raw))), raw + b"0", b"0" + raw):
        path.write_bytes(text)
        with pytest.raises(RunError, match="checksum differs"):
            read_sealed(path)


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A folder with names that stand for no ordinary file."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "directory").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "to_pipe").symlink_to(tmp_path / "pipe")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "socket"))
    for device in ("null", "zero", "tty", "full"):
        (tmp_path / device).symlink_to(f"/dev/{device}")
    (tmp_path / "file").touch()
    return tmp_path


STRANGE = ("link", "loop", "directory", "pipe", "to_pipe", "socket", "null", "zero", "tty", "full")


@pytest.mark.parametrize("name", [*STRANGE, "absent", ".", "file/below", "a\0b", "x" * 300])
def test_what_is_no_file_is_neither_read_nor_waited_for(strange: Path, name: str) -> None:
    with pytest.raises(RunError, match="can't read") as caught:
        read_whole(strange / name, RunError)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="can't read"):
        read_sealed_json(strange / name, RunError)
    assert read_whole(strange / "file") == b""


def test_a_file_is_read_as_far_as_it_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(path)
    assert read_whole(path, limit=5) == read_whole(tmp_path / "link") == b"12345"
    with pytest.raises(InputError, match="expected at most 4 bytes, got 5"):
        read_whole(path, limit=4)
    with path.open("wb") as file:
        file.truncate(2**40)  # of holes
    with pytest.raises(InputError, match="expected at most"):
        read_whole(path)


@pytest.mark.skipif(sys.platform != "linux", reason="a file of the system that has no size")
def test_a_file_that_has_more_than_its_size_is_refused() -> None:
    with pytest.raises(InputError, match="longer than the system says"):
        read_whole(Path("/proc/self/status"))


def test_an_error_of_the_reader_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ZeroDivisionError), open_regular(tmp_path / "file") as file:
        _ = 1 / len(file.read())
    with pytest.raises(ValueError, match="own"), open_regular(tmp_path / "file"):
        raise ValueError("own")


@pytest.mark.parametrize("name", STRANGE)
def test_only_an_ordinary_file_is_written_in_place(strange: Path, name: str) -> None:
    with pytest.raises(RunError, match="it is a link or no ordinary file"):
        check_own(strange / name)
    (strange / "to_file").symlink_to(strange / "file")
    with pytest.raises(RunError, match="it is a link or no ordinary file"):
        check_own(strange / "to_file")
    check_own(strange / "file")
    check_own(strange / "absent")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"schema": 1, "a": ' + "[" * 400 + "]" * 400 + "}",
        '{"schema": ' + "9" * 5000 + "}",
        '{"schema": true}',
        '{"schema": 1}',
        '{"schema": 1, "checksum": []}',
        '["schema"]',
        "NaN",
        "\ufeff{}",
        "",
    ],
    ids=lambda text: text[:20],
)
def test_json_that_is_not_ours_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(RunError, match="is damaged") as caught:
        read_sealed_json(tmp_path / "file", RunError)
    assert str(caught.value).isprintable()
