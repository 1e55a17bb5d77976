"""What choosing and cutting a candidate costs beside running it once.

    python bench/planning.py cifar_resnet56 cifar_mobilenet_v2 torchvision/resnet50

Medians over candidates drawn at random, in milliseconds: ``keep`` (compensate, sort, cut to 50 %
of the MACs), ``plan`` (indices and attributes), ``digest``, ``slim``; and ``forward``, one
batch of ``--batch`` images through the slimmed network in float32. ``ratio`` is all the former
over the latter; ``share`` is what they are of a trial of ``--images`` images at that pace.
Weights are random: none of this depends on them. Appended to ``results/planning.jsonl``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import record
from lcprune.cost import Budget
from lcprune.criteria import saliency
from lcprune.models import build
from lcprune.ranking import PlanBuilder, Ranker
from lcprune.slimming import slim
from lcprune.tracing import trace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--candidates", type=int, default=15)
    parser.add_argument("--compensation", default="additive:rank")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--images", type=int, default=3000)
    options = parser.parse_args()
    for network in options.networks:
        row = measure(network, options)
        record.append("planning", row)
        print("  ".join(f"{key} {value}" for key, value in row.items()))


def measure(network: str, options: argparse.Namespace) -> dict[str, Any]:
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
        "network": network,
        "groups": graph.prunable,
        "families": len(graph.families),
        "compensation": options.compensation,
        "batch": options.batch,
        **{f"{step}_ms": round(1e3 * value, 3) for step, value in median.items()},
        "ratio": round(own / median["forward"], 4),
        "share": round(own / trial, 5),
        "candidates": options.candidates,
    }


if __name__ == "__main__":
    main()
