"""Trials per second in one process and with Ray workers.

    python bench/scaling.py cifar_resnet56 --workers 0 2
    python bench/scaling.py cifar_resnet56 --workers 2 --kill
    python bench/scaling.py table

``--workers 0`` is one process with ``--threads`` threads; each Ray worker has that many as well.
``start_seconds`` end with the first trial; ``trials_per_second`` is the pace of those after it,
by the clock. With ``--kill`` one worker ends in the middle, and ``longest_pause_seconds``, the
longest time without a finished trial, says what that costs. Weights and images are random: the pace
does not depend on them. Candidates are drawn at random, so that all rows try the same ones;
``best`` is the lowest loss.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import runner
from lcprune.cost import Budget
from lcprune.criteria import saliency
from lcprune.fitness import CrossEntropy
from lcprune.models import build
from lcprune.searching import RayExecutor, SearchProgress, Trial, search
from lcprune.tracing import trace


class Fatal:
    """A fitness that ends its process at its ``at``-th call, once in all processes."""

    def __init__(self, inner: CrossEntropy, at: int, mark: Path) -> None:
        self.inner = inner
        self.left = at
        self.mark = mark

    def __call__(self, small: nn.Module) -> float:
        self.left -= 1
        if self.left == 0 and not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        return self.inner(small)


KEYS = ("network", "workers", "executor", "threads", "device", "gpus", "trials", "images",
        "recalibrate", "batch", "kill", "commit", "machine")  # fmt: skip


def main() -> None:
    bench = runner.Bench("scaling", __doc__, KEYS, table)
    bench.argument("networks", nargs="+")
    bench.argument("--workers", type=int, nargs="+", default=[0, 2], help="0: one process")
    bench.argument("--gpus", type=float, default=0.0, help="of each worker")
    bench.argument("--device", default="cpu")
    bench.argument("--address", help="of a Ray cluster; none begins one here")
    bench.argument("--trials", type=int, default=100)
    bench.argument("--images", type=int, default=2000, help="of the fitness")
    bench.argument("--recalibrate", type=int, default=1000, help="images")
    bench.argument("--batch", type=int, default=250)
    bench.argument("--kill", action="store_true", help="end a worker in the middle")
    options = bench.parse()
    if options.kill and 0 in options.workers:
        bench.error("--kill ends a worker: expected --workers 1 or more")
    options.threads = options.threads or 1  # of the process, or of each worker
    torch.set_num_threads(options.threads)
    for network in options.networks:
        for workers in options.workers:
            key = {
                "network": network,
                "executor": "ray" if workers else "in process",
                "workers": workers or 1,
                "threads": options.threads,
                **{k: getattr(options, k) for k in KEYS[4:11]},
            }
            bench.row(key, partial(measure, network, workers, options))


def measure(network: str, workers: int, options: argparse.Namespace) -> runner.Row:
    size = 32 if network.startswith("cifar") else 224
    model = build(network, classes=10, input_shape=(3, size, size)).eval()
    graph = trace(model, torch.zeros(1, 3, size, size))
    scores = saliency(model, graph, "l2")
    generator = torch.Generator().manual_seed(0)
    count = options.images + options.recalibrate
    images = torch.randn(count, 3, size, size, generator=generator).to(options.device)
    labels = torch.randint(10, (options.images,), generator=generator).to(options.device)
    recalibrate = list(images[options.images :].split(options.batch))
    fitness: Any = CrossEntropy(images[: options.images].clone(), labels, options.batch)
    finished: list[float] = []

    def on_trial(trial: Trial, progress: SearchProgress) -> None:
        finished.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        if options.kill:
            at = max(1, options.trials // (2 * workers))
            fitness = Fatal(fitness, at, Path(folder) / "killed")
        ray = RayExecutor(max(workers, 1), options.address, options.gpus, options.threads)
        begun = time.perf_counter()
        result = search(
            model.to(options.device),
            graph,
            scores,
            Budget(macs=0.5),
            fitness=fitness,
            recalibrate=[batch.clone() for batch in recalibrate],
            trials=options.trials,
            journal=Path(folder) / "search.sqlite",
            strategy="random",
            executor=ray if workers else None,
            on_trial=on_trial,
        )
        ended = time.perf_counter()
        killed = (Path(folder) / "killed").exists()
    pauses = [after - before for before, after in itertools.pairwise(finished)]
    return {
        "evaluated": sum(trial.same_as is None for trial in result.history),
        "start_seconds": round(finished[0] - begun, 2),
        "seconds": round(ended - begun, 2),
        "trials_per_second": round(len(pauses) / sum(pauses), 3),
        "longest_pause_seconds": round(max(pauses), 2),
        "killed": killed,
        "best": result.loss,
    }


def table(_: argparse.Namespace) -> None:
    columns = ("network", "executor", "workers", "killed", "trials_per_second", "start_seconds",
               "longest_pause_seconds", "commit")  # fmt: skip
    lines = [[row[column] for column in columns] for row in runner.rows("scaling")]
    print(runner.markdown(columns, lines))


if __name__ == "__main__":
    main()
