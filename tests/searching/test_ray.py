"""Searches on Ray: one cluster for all, since it takes seconds to begin."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graphs import chain
from lcprune.cost import Budget
from lcprune.criteria import saliency
from lcprune.errors import DataError, InputError, RunError
from lcprune.searching import RayExecutor, SearchResult, read_journal, search
from searching.ray_fitness import Broken, Deadly, Distance

ray: Any = pytest.importorskip("ray", reason="Ray is not installed: pip install lcprune[ray]")
psutil: Any = pytest.importorskip("psutil", reason="psutil is not installed")

MODEL, GRAPH = chain([24, 20, 28, 32])
SALIENCY = saliency(MODEL, GRAPH, "l2")
BUDGET = Budget(macs=0.5)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    # Ray has a handler of its own from here on, which ends the process.
    handler = signal.getsignal(signal.SIGTERM)
    # One GPU by name only: what is shared by fractions is a number to Ray.
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=2**27,
    )
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, handler)


def run(fitness: nn.Module | Any, executor: RayExecutor | None, **options: Any) -> SearchResult:
    options = {"trials": 24, "strategy": "random", **options}
    return search(MODEL, GRAPH, SALIENCY, BUDGET, fitness=fitness, executor=executor, **options)


def found(result: SearchResult) -> set[tuple[int, str, float]]:
    return {(trial.number, trial.digest, trial.loss) for trial in result.history}


@pytest.mark.usefixtures("cluster")
def test_two_workers_of_which_one_dies_find_what_one_process_finds(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    executor = RayExecutor(workers=2, gpus=0.5)
    here = tmp_path / "deaths"
    here.mkdir()
    there = run(Deadly(MODEL, here, at=5, times=1), executor, journal=journal)
    assert [path.name for path in here.glob("death-*")] == ["death-0"]
    processes = list(here.glob("process-*"))
    assert len(processes) == 3
    assert {path.read_text() for path in processes} == {"1"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = run(Distance(MODEL), None)
    finally:
        torch.set_num_threads(threads)
    assert found(there) == found(whole)
    assert there.plan == whole.plan
    record = read_journal(journal)
    assert record.trials == there.history
    assert record.in_flight == ()
    environment = record.identity["environment"]
    assert (environment["workers"], environment["threads"]) == (2, 1)
    assert ray.is_initialized()


@pytest.mark.thorough
@pytest.mark.usefixtures("cluster")
def test_a_worker_that_dies_again_and_again_ends_the_search_in_one_line(tmp_path: Path) -> None:
    executor = RayExecutor(workers=1, retries=0)
    with pytest.raises(RunError, match=r"trial 1 lost its Ray worker 1 times.*: ") as caught:
        run(Deadly(MODEL, tmp_path, at=2, times=9), executor, journal=tmp_path / "search.sqlite")
    assert "\n" not in str(caught.value)
    # Whoever goes on has what was finished.
    record = read_journal(tmp_path / "search.sqlite")
    assert [trial.number for trial in record.trials] == [0]


@pytest.mark.thorough
@pytest.mark.usefixtures("cluster")
def test_what_the_fitness_raises_is_raised_here() -> None:
    with pytest.raises(DataError, match=r"^expected labels 0 … 9$"):
        run(Broken(MODEL), RayExecutor(workers=1))


@pytest.mark.thorough
@pytest.mark.usefixtures("cluster")
def test_what_can_not_be_is_refused_at_once() -> None:
    for executor, part in (
        (RayExecutor(workers=3), "3 Ray workers of 1 CPU each on a cluster that has 2"),
        (RayExecutor(workers=2, gpus=0.7), "2 Ray workers of 0.7 GPU each on a cluster"),
    ):
        with pytest.raises(RunError, match=part):
            run(Distance(MODEL), executor)
    generator = (number for number in range(3))
    with pytest.raises(InputError, match="can't be sent to other processes"):
        run(lambda small: next(generator), RayExecutor(workers=1))


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"threads": 0}, {"retries": -1}, {"gpus": -0.5}, {"gpus": 1.5}],
    ids=str,
)
def test_numbers_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        replace(RayExecutor(), **wrong)


def test_an_address_where_nobody_listens_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RunError, match=f"nobody listens at 127.0.0.1:{port}"):
        run(Distance(MODEL), RayExecutor(workers=1, address=f"127.0.0.1:{port}"))


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import signal
from pathlib import Path
from lcprune.searching import RayExecutor
from searching import test_ray as t
from searching.ray_fitness import Distance

def wait(small):
    Path({mark!r}).write_text("here")
    signal.pause()

handler = signal.getsignal(signal.SIGTERM)
try:
    t.run(wait, RayExecutor(workers=1))
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGTERM) == handler
    print("interrupted")
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_ctrl_c_ends_a_cluster_of_ones_own_and_all_its_processes(tmp_path: Path) -> None:
    mark = tmp_path / "evaluating"
    os.mkfifo(mark)
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), mark=str(mark))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    reader = os.open(mark, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # Whichever comes first: the worker is at work, or the script has ended.
        select.select([reader, process.stdout], [], [], 120)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        os.close(reader)
        process.kill()
    assert (process.returncode, output) == (0, b"interrupted\n"), errors.decode()
    assert len(children) > 2
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
