"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from lcprune._files import (
    PARTIAL,
    read_sealed,
    read_whole,
    replacing,
    sha256_of,
    write_sealed,
    write_text,
)
from lcprune.errors import RunError


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


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for name in ("absent", ".", "link", "loop", "pipe", "file/below", "a\0b"):
        with pytest.raises(RunError, match="can't read") as caught:
            read_whole(tmp_path / name, RunError)
        assert "\n" not in str(caught.value)
    assert read_whole(tmp_path / "file") == b""
