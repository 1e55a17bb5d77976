"""What choosing and cutting a candidate costs beside running it once.

    python bench/planning.py cifar_resnet56 cifar_mobilenet_v2 torchvision/resnet50
    python bench/planning.py table

Medians over candidates drawn at random, in milliseconds: ``keep`` (compensate, sort, cut to 50 %
of the MACs), ``plan`` (indices and attributes), ``digest``, ``slim``; and ``forward``, one
batch of ``--batch`` images through the slimmed network in float32. ``ratio`` is all the former
over the latter; ``share`` is what they are of a trial of ``--images`` images at that pace.
Weights are random: none of this depends on them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

import runner
from lcprune.cost import Budget
from lcprune.criteria import saliency
from lcprune.models import build
from lcprune.ranking import PlanBuilder, Ranker
from lcprune.slimming import slim
from lcprune.tracing import trace

KEYS = ("network", "compensation", "batch", "commit", "machine")


def main() -> None:
    bench = runner.Bench("planning", __doc__, KEYS, table)
    bench.argument("networks", nargs="+")
    bench.argument("--candidates", type=int, default=15)
    bench.argument("--compensation", default="additive:rank")
    bench.argument("--batch", type=int, default=100)
    bench.argument("--images", type=int, default=3000)
    options = bench.parse()
    for network in options.networks:
        key = {
            "network": network,
            "compensation": options.compensation,
            "batch": options.batch,
        }
        bench.row(key, partial(measure, network, options))


def measure(network: str, options: argparse.Namespace) -> runner.Row:
    size = 32 if network.startswith("cifar") else 224
    model = build(network, classes=10, input_shape=(3, size, size)).eval()
    graph = trace(model, torch.zeros(1, 3, size, size))
    scores = saliency(model, graph, "l2")
    ranker = Ranker(graph, scores, Budget(macs=0.5), compensation=options.compensation)
    builder = PlanBuilder(graph)
    images = torch.zeros(options.batch, 3, size, size)
    generator = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds.setdefault(step, []).append(time.perf_counter() - start)
        return result

    def candidate() -> None:
        latent = ranker.compensation.draw(generator)
        keep = timed("keep", lambda: ranker.keep(latent))
        plan = timed("plan", lambda: builder.plan(keep))
        timed("digest", lambda: plan.digest)
        small = timed("slim", lambda: slim(model, plan))
        with torch.inference_mode():
            timed("forward", lambda: small(images))

    candidate()  # warms up what is made at first use
    seconds.clear()
    for _ in range(options.candidates):
        candidate()
    median = {step: statistics.median(values) for step, values in seconds.items()}
    own = sum(value for step, value in median.items() if step != "forward")
    trial = own + median["forward"] * options.images / options.batch
    return {
        "groups": graph.prunable,
        "families": len(graph.families),
        **{f"{step}_ms": round(1e3 * value, 3) for step, value in median.items()},
        "ratio": round(own / median["forward"], 4),
        "share": round(own / trial, 5),
        "candidates": options.candidates,
    }


def table(_: argparse.Namespace) -> None:
    steps = ("keep_ms", "plan_ms", "digest_ms", "slim_ms", "forward_ms")
    lines = [
        [row["network"], *(f"{row[step]:.1f}" for step in steps), row["ratio"], row["commit"]]
        for row in runner.rows("planning")
    ]
    print(runner.markdown(["network", *steps, "ratio", "commit"], lines))


if __name__ == "__main__":
    main()
