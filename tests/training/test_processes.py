"""Two processes that train one network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcprune.errors import InputError, RunError
from lcprune.training import finetune, is_main, on_main, process_count
from lcprune.training._processes import Processes, join
from training import two_processes as worker

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pair:
    """What two processes left, by rank."""

    folder: Path
    codes: list[int]
    errors: list[str]
    states: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As the two processes have: another number of threads rounds differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Both processes, started as a launcher starts them, until they ended."""
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, worker.__file__, str(folder)]
    running = [
        subprocess.Popen(
            command,
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    codes = [process.returncode for process in running]
    for rank in "01":
        assert (folder / f"outcomes-{rank}.json").exists(), "\n".join(errors)
    return Pair(
        folder,
        codes,
        errors,
        [torch.load(folder / f"states-{rank}.pt", weights_only=True) for rank in "01"],
        [json.loads((folder / f"outcomes-{rank}.json").read_text()) for rank in "01"],
    )


@pytest.mark.parametrize("name", worker.NAMES)
def test_the_result_is_that_of_one_process(pair: Pair, name: str) -> None:
    alone = worker.train(name)
    for together in pair.states:
        torch.testing.assert_close(together[name]["state"], alone["state"], rtol=1e-9, atol=1e-12)
        for own, reference in zip(together[name]["reports"], alone["reports"], strict=True):
            assert own == pytest.approx(reference, rel=1e-5)


def test_both_processes_end_with_the_same_bits(pair: Pair) -> None:
    for name in worker.NAMES:
        first, second = (states[name]["state"] for states in pair.states)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_resumed_training_equals_the_unbroken_one(pair: Pair) -> None:
    whole = pair.states[0]["resumed"][0]
    for states in pair.states:
        for state in states["resumed"]:
            assert all(torch.equal(state[key], whole[key]) for key in whole)


def test_a_checkpoint_is_resumed_by_as_many_processes(pair: Pair) -> None:
    with pytest.raises(RunError, match=r"in 2 processes, expected one process$"):
        finetune(
            worker.network(0.3),
            worker.LOADER,
            config=worker.CONFIG,
            checkpoint=pair.folder / "resumed.pt",
            resume=True,
        )


def test_what_the_main_process_found_is_told(pair: Pair) -> None:
    first, second = (outcomes["told"] for outcomes in pair.outcomes)
    assert first == second != [os.getpid()]


def test_the_main_process_can_train_alone_meanwhile(pair: Pair) -> None:
    reports = worker.train("plain")["reports"]
    for outcomes in pair.outcomes:
        assert outcomes["alone"] == [1, 1, reports]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("refused", "DataError", "no such data"),
        ("diverged", "DivergenceError", "lower the learning rate, 1e+06 at its peak"),
        ("unwritable", "RunError", "can't write"),
    ],
)
def test_errors_reach_all_and_are_one_processs(
    pair: Pair, name: str, kind: str, message: str
) -> None:
    main, other = (outcomes[name] for outcomes in pair.outcomes)
    assert main[0] == kind
    assert other[0] == "ElsewhereError"
    assert message in main[1]
    assert main[1] == other[1]


def test_one_that_fails_ends_both_with_one_line(pair: Pair) -> None:
    assert pair.codes == [2, 2]
    assert pair.errors == ["", "error: image 17 is damaged\n"]


@given(size=st.integers(0, 300), count=st.integers(1, 17))
def test_parts_are_the_batch(size: int, count: int) -> None:
    processes = [Processes(rank, count, CPU) for rank in range(count)]
    parts = [range(size)[each.part(size)] for each in processes]
    weights = [each.weight(size) for each in processes]
    assert sum(weights) == pytest.approx(1)
    if size < count:
        assert parts == [range(size)] * count
        assert len(set(weights)) == 1
    else:
        assert [i for part in parts for i in part] == list(range(size))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert weights == pytest.approx([len(part) / size for part in parts])


def test_one_process_is_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert process_count() == 1
    assert is_main()
    assert on_main(lambda: 3) == 3
    monkeypatch.setenv("WORLD_SIZE", "4")  # as a batch system may, that started no others
    assert process_count() == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    assert process_count() == 4
    assert not is_main()


def test_without_accelerate_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'lcprune\[distributed\]'"):
        join("cpu")
