"""Reading ahead in other processes, and how they end."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from itertools import repeat
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFile
from torch import Tensor

from data.trees import write_files
from lcprune.data import ImageFiles
from lcprune.data._readers import (
    AHEAD,
    BLOCK,
    answer,
    ask,
    default_workers,
    read_batches,
    started_readers,
)
from lcprune.errors import DataError

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def number(index: int) -> Tensor:
    return torch.full((1, 1, 1), index % 256, dtype=torch.uint8)


def with_process(index: int) -> Tensor:
    return torch.tensor([index, os.getpid(), os.getppid()])


def large(index: int) -> Tensor:
    return torch.zeros(1000, 1000, dtype=torch.uint8)


def dying(index: int) -> Tensor:
    if index == 40:
        os.kill(os.getpid(), KILL)
    return number(index)


def failing(error: Exception, index: int) -> Tensor:
    if index == 77:
        raise error
    return number(index)


@given(total=st.integers(0, 150), batch=st.integers(1, 60), seed=st.integers(0, 9))
def test_batches_are_the_order_cut_in_pieces(total: int, batch: int, seed: int) -> None:
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    parts = [part.flatten().tolist() for part in read_batches(number, order, repeat(batch), 0)]
    assert parts == [order[start : start + batch] for start in range(0, total, batch)]


def test_each_image_is_read_once_and_by_other_processes() -> None:
    (found,) = read_batches(with_process, range(6 * BLOCK), repeat(6 * BLOCK), 2)
    assert found[:, 0].tolist() == list(range(6 * BLOCK))
    processes = set(found[:, 1].tolist())
    assert len(processes) == 2
    assert os.getpid() not in processes


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="no such method here"
)
def test_the_processes_are_not_forked_from_this_one() -> None:
    """They would keep copies of the pages that a network that trains here changes."""
    found = torch.cat(list(read_batches(with_process, range(6 * BLOCK), repeat(3 * BLOCK), 2)))
    (parent,) = set(found[:, 2].tolist())
    assert parent != os.getpid()


def test_a_few_images_are_read_here() -> None:
    (found,) = read_batches(with_process, range(3), repeat(3), 2)
    assert found[:, 1].tolist() == [os.getpid()] * 3


def test_what_is_asked_for_is_a_bounded_number_of_images_ahead() -> None:
    """A set of a million files is begun at once."""
    asked = itertools.count()
    batches = read_batches(number, asked, repeat(20), 2)
    for done in range(1, 40):
        next(batches)
        assert next(asked) <= 20 * done + AHEAD + 20 + done  # the counter's own steps
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_not_drawn_from(workers: int) -> None:
    before = torch.get_rng_state()
    list(read_batches(number, range(50), repeat(20), workers))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_as_it_was_and_ends_the_processes(workers: int) -> None:
    read = partial(failing, DataError("bird.jpg: can't be read as an image: it is empty"))
    batches = read_batches(read, range(300), repeat(20), workers)
    found = [next(batches) for _ in range(3)]
    assert len(found) == 3
    with pytest.raises(DataError) as caught:
        list(batches)
    assert str(caught.value) == "bird.jpg: can't be read as an image: it is empty"
    assert multiprocessing.active_children() == []


def test_where_another_error_was_raised_is_told() -> None:
    read = partial(failing, UnicodeDecodeError("utf-8", b"12", 0, 1, "odd"))
    with pytest.raises(RuntimeError, match=r"in failing\n.*raise error\n.*UnicodeDecodeError"):
        list(read_batches(read, range(300), repeat(20), 2))
    assert multiprocessing.active_children() == []


def test_processes_end_with_the_loop_that_is_left() -> None:
    batches = read_batches(number, range(3000), repeat(20), 2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # type: ignore[attr-defined]  # as when the loop's frame goes
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(DataError, match="was ended from outside: is there enough memory") as caught:
        list(read_batches(dying, range(300), repeat(20), 2))
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_while_it_hands_over_is_told() -> None:
    """It has begun, and the rest, more than a connection holds, would be waited for."""
    with started_readers(large, 1) as (connection,):
        ask(connection, list(range(BLOCK)))
        connection.poll(None)
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        with pytest.raises(DataError, match="was ended from outside"):
            answer(connection)


@pytest.mark.skipif(os.name != "posix", reason="messages look otherwise there")
@pytest.mark.parametrize("begun", [b"", b"\0", b"\0\0\x10\0", b"\0\0\x10\0 a part"])
def test_a_message_may_end_anywhere(begun: bytes) -> None:
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        os.write(theirs.fileno(), begun)
    with ours, pytest.raises(DataError, match="was ended from outside"):
        answer(ours)


@pytest.mark.thorough
def test_where_there_is_no_place_for_a_server_processes_are_started_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(forkserver, "ensure_running", fails)
    found = torch.cat(list(read_batches(with_process, range(3 * BLOCK), repeat(BLOCK), 1)))
    assert found[:, 0].tolist() == list(range(3 * BLOCK))
    assert os.getpid() not in found[:, 1].tolist()
    assert set(found[:, 2].tolist()) == {os.getpid()}


def test_as_many_processes_as_cpus_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert default_workers() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(200)), raising=False)
    assert default_workers() == 16


@given(sizes=st.lists(st.integers(1, 40), max_size=6), total=st.integers(0, 120))
def test_batches_may_be_of_any_size(sizes: list[int], total: int) -> None:
    found = [part.flatten().tolist() for part in read_batches(number, range(total), sizes, 0)]
    expected, left = [], list(range(total))
    for size in sizes:
        expected.append(left[:size])
        left = left[size:]
    assert found == [part for part in expected if part]


SCRIPT = """
import multiprocessing, os, signal, sys, threading
from multiprocessing import forkserver, util
from pathlib import Path
from types import SimpleNamespace
import torch
from lcprune.data import ImageFiles, _readers

files = sorted(Path(sys.argv[1]).iterdir()) * 200
images = ImageFiles(files, torch.zeros(len(files), dtype=torch.int64), 32, workers=2)

# To this thread a signal goes that the other one blocks, as to those that compute.
threading.Thread(target=threading.Event().wait, daemon=True).start()

def and_interrupt(module, name):
    original = getattr(module, name)
    def both(*args):
        setattr(module, name, original)
        result = original(*args)
        os.killpg(0, signal.SIGINT)
        return result
    setattr(module, name, both)

here = SimpleNamespace(go_on=lambda: None)
for module, name in ((forkserver, "ensure_running"), (_readers, "_start"), (here, "go_on")):
    and_interrupt(module, name)
    try:
        for _ in images.batches(8):
            here.go_on()
    except KeyboardInterrupt:
        left = multiprocessing.active_children()  # one that does nothing may still be on its way
        print(name, len(left) if name != "ensure_running" else "", flush=True)
for number, _ in enumerate(images.batches(8)):
    if number == 1:
        print("reads", len(multiprocessing.active_children()), flush=True)
        print(util.get_temp_dir(), flush=True)
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups here")
def test_interrupts_end_what_reads_quietly_and_a_kill_does(tmp_path: Path) -> None:
    """As soon as the server is begun, as soon as a process is, and later; a script without a guard.

    The output ends when all have ended that inherited it.
    """
    (tmp_path / "files").mkdir()
    write_files(tmp_path / "files", [(40, 40)] * 20)
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path / "files"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal's foreground job has
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(4)]
            left = process.stdout.readline().strip()  # the server's socket is in there
            process.kill()
            rest, errors = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if left:
        shutil.rmtree(left)
    assert lines == ["ensure_running \n", "_start 0\n", "go_on 0\n", "reads 2\n"], errors
    assert (process.returncode, rest, errors) == (-signal.SIGKILL, "", "")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    files = write_files(tmp_path, [(40, 40)] * 40)
    files[33].write_bytes(b"")
    images = ImageFiles(files, torch.zeros(40, dtype=torch.int64), 32, workers=2)
    with pytest.raises(DataError, match=r"33\.png: can't be read as an image: it is empty"):
        images.in_memory()
    assert len(list(images.subset(torch.arange(33)).batches(10))) == 4


def test_what_pillow_was_told_here_counts_in_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_files(tmp_path, [(40, 40)] * 40)
    files[33].write_bytes(files[33].read_bytes()[:-30])
    expected, found = (
        ImageFiles(files, torch.zeros(40, dtype=torch.int64), 32, workers=workers)
        for workers in (0, 2)
    )
    with pytest.raises(DataError, match=r"33\.png: can't be read as an image"):
        found.in_memory()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert torch.equal(found.in_memory().pixels, expected.in_memory().pixels)
