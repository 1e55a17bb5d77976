"""Reading ahead in other processes, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from data.trees import write_files
from lcprune.data import ImageFiles
from lcprune.data._workers import BLOCK, default_workers, read_batches
from lcprune.errors import DataError


def number(index: int) -> Tensor:
    return torch.full((1, 1, 1), index % 256, dtype=torch.uint8)


def with_process(index: int) -> Tensor:
    return torch.tensor([index % 256, os.getpid() % 256, os.getpid() // 256 % 256]).to(torch.uint8)


def dying(index: int) -> Tensor:
    if index == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return number(index)


def failing(index: int) -> Tensor:
    if index == 77:
        raise DataError("bird.jpg: can't be read as an image: it is empty")
    return number(index)


@given(total=st.integers(0, 150), batch=st.integers(1, 60), seed=st.integers(0, 9))
def test_batches_are_the_order_cut_in_pieces(total: int, batch: int, seed: int) -> None:
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    whole = -(-total // batch)
    expected = [number(int(i)).flatten() for i in order]
    for count in {whole, max(0, whole - 1)}:
        parts = [part.flatten() for part in read_batches(number, order, batch, count, 0)]
        assert len(parts) == count
        wanted = [torch.cat(expected[i * batch : (i + 1) * batch]) for i in range(count)]
        assert all(torch.equal(a, b) for a, b in zip(parts, wanted, strict=True))


def test_each_image_is_read_once_and_by_other_processes() -> None:
    order = torch.arange(6 * BLOCK)
    (found,) = read_batches(with_process, order, len(order), 1, 2)
    assert found[:, 0].tolist() == order.tolist()
    processes = {tuple(row) for row in found[:, 1:].tolist()}
    own = os.getpid()
    assert len(processes) == 2
    assert (own % 256, own // 256 % 256) not in processes


def test_a_few_images_are_read_here() -> None:
    ((first, *rest),) = read_batches(with_process, torch.arange(3), 3, 1, 2)
    assert first[1:].tolist() == [os.getpid() % 256, os.getpid() // 256 % 256]
    assert len(rest) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_not_drawn_from(workers: int) -> None:
    before = torch.get_rng_state()
    list(read_batches(number, torch.arange(50), 20, 3, workers))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_as_it_was_and_ends_the_processes(workers: int) -> None:
    batches = read_batches(failing, torch.arange(300), 20, 15, workers)
    found = [next(batches) for _ in range(3)]
    assert len(found) == 3
    with pytest.raises(DataError) as caught:
        list(batches)
    assert str(caught.value) == "bird.jpg: can't be read as an image: it is empty"
    assert multiprocessing.active_children() == []


def test_processes_end_with_the_loop_that_is_left() -> None:
    batches = read_batches(number, torch.arange(3000), 20, 150, 2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # type: ignore[attr-defined]  # as when the loop's frame goes
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(DataError, match="was ended from outside: is there enough memory") as caught:
        list(read_batches(dying, torch.arange(300), 20, 15, 2))
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_as_many_processes_as_are_left_for_each_launched_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert default_workers() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert default_workers() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "30")
    assert default_workers() == 1
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(200)), raising=False)
    assert default_workers() == 16


ENDLESS = """
import multiprocessing, sys
from pathlib import Path
import torch
from lcprune.data import ImageFiles

files = sorted(Path(sys.argv[1]).iterdir()) * 200
images = ImageFiles(files, torch.zeros(len(files), dtype=torch.int64), 32, workers=2)
try:
    for number, _ in enumerate(images.batches(8)):
        if number == 1:
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
except KeyboardInterrupt:
    print("left:", len(multiprocessing.active_children()), flush=True)
    raise SystemExit(130)
"""


def test_an_interrupt_ends_all_processes_quietly(tmp_path: Path) -> None:
    write_files(tmp_path, [(40, 40)] * 20)
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal's foreground job has
    ) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert len(workers) == 2
    assert (process.returncode, output, errors) == (130, "left: 0\n", "")
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    files = write_files(tmp_path, [(40, 40)] * 40)
    files[33].write_bytes(b"")
    images = ImageFiles(files, torch.zeros(40, dtype=torch.int64), 32, workers=2)
    with pytest.raises(DataError, match=r"33\.png: can't be read as an image: it is empty"):
        images.in_memory()
    assert len(list(images.subset(torch.arange(33)).batches(10))) == 4
