"""Whether candidates run faster when their widths are padded to a multiple of 8.

    python bench/padding.py cifar_resnet20 cifar_resnet56

Random plans at half the MACs, as they are and with every family widened to the next multiple of 8
(as many channels of zeros would do the same). Each is recalibrated and measured twice: ``first``
includes what PyTorch prepares for shapes that it has not met, ``again`` doesn't. Medians in
milliseconds; ``ratio`` is the median of padded over as it is, first run against first run, so that
above 1 padding is slower. In the number format given, in both layouts. A row each in
``results/padding.jsonl``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import nn

import lcprune as lp
import record
from lcprune.fitness import CrossEntropy, Precision, recalibrate
from lcprune.graph import BoolArray
from lcprune.models import build
from lcprune.ranking import PlanBuilder, Ranker

MULTIPLE = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--images", type=int, nargs=2, default=(250, 500))
    options = parser.parse_args()
    for network in options.networks:
        for channels_last in (False, True):
            precision = Precision(options.dtype, channels_last, batch=125)
            row = measure(network, precision, options.candidates, *options.images)
            record.append("padding", row)
            print("  ".join(f"{key} {value}" for key, value in row.items()))


def measure(
    network: str, precision: Precision, candidates: int, for_statistics: int, for_fitness: int
) -> dict[str, Any]:
    model = build(network, classes=10, input_shape=(3, 32, 32)).eval()
    graph = lp.trace(model, torch.zeros(1, 3, 32, 32))
    ranker = Ranker(graph, lp.saliency(model, graph, "l2"), lp.Budget(macs=0.5))
    builder = PlanBuilder(graph)
    images = torch.randn(for_statistics + for_fitness, 3, 32, 32)
    statistics_images = list(precision.cast(images[:for_statistics]).split(precision.batch))
    labels = torch.randint(0, 10, (for_fitness,))
    fitness = CrossEntropy(images[for_statistics:], labels, precision.batch, precision)

    def seconds(small: nn.Module) -> float:
        start = time.perf_counter()
        recalibrate(small, statistics_images)
        fitness(small)
        return time.perf_counter() - start

    generator = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for _ in range(candidates):
        keep = ranker.keep(ranker.compensation.draw(generator))
        for name, kept in (("as it is", keep), ("padded", padded(keep, graph.family_of))):
            small = precision.apply(lp.slim(model, builder.plan(kept)))
            for run in ("first", "again"):
                found.setdefault(f"{name}, {run}", []).append(seconds(small))
    pairs = zip(found["padded, first"], found["as it is, first"], strict=True)
    return {
        "network": network,
        "dtype": precision.dtype,
        "channels_last": precision.channels_last,
        "candidates": candidates,
        "images": [for_statistics, for_fitness],
        **{name: round(1e3 * statistics.median(times), 1) for name, times in found.items()},
        "ratio": round(statistics.median(wide / narrow for wide, narrow in pairs), 3),
    }


def padded(keep: BoolArray, family_of: np.ndarray[Any, Any]) -> BoolArray:
    """As many groups more of each family as are left, up to the next multiple of 8."""
    wider = keep.copy()
    for family in range(family_of.max() + 1):
        removed = np.flatnonzero((family_of == family) & ~keep)
        width = int((keep & (family_of == family)).sum())
        wider[removed[: -width % MULTIPLE]] = True
    return wider


if __name__ == "__main__":
    main()
