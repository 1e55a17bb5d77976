"""How good the plans of searches are after fine-tuning, on the test split.

    python bench/search.py …                 # whose best plans are rows of results/plans.jsonl
    python bench/trained.py --cifar DIR --epochs 1 --seeds 0 1
    python bench/trained.py table

``auto``, ``evolution``, ``affine`` and ``random`` are the best plans that ``search.py`` found with
a seed; ``none`` is β = 0 and ``uniform`` one width for all, each one plan for all seeds. Every plan
is cut, recalibrated on 1,000 images, and trained with the defaults and the same seed, so that
methods of a seed see the same batches. A row has the accuracy after the last epoch on the test
split. Seeds are the outer loop.

In the table accuracies are percent, by seed; ``over evolution`` is the mean of the differences to
evolution with the same seed, and their range.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import lcprune as lp
import plans
import runner
from lcprune.data import Data, training_batches
from lcprune.fitness import Precision, recalibrate
from lcprune.training import TrainingConfig, evaluate_top1, finetune

KEYS = ("network", "base", "budget", "epochs", "seed", "method")
CONTROLS = ("none", "uniform")


def main() -> None:
    bench = runner.Bench("trained", __doc__, KEYS, table)
    bench.argument("--weights", type=Path, default=plans.BASES["53f40250"])
    bench.argument("--cifar", type=Path, required=True)
    bench.argument("--network", default="cifar_resnet20")
    bench.argument("--budgets", nargs="+", type=float, default=[0.5, 0.3])
    bench.argument("--methods", nargs="+", default=["auto", "evolution", *CONTROLS, "random"])
    bench.argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    bench.argument("--epochs", type=int, default=10)
    options = bench.parse()
    base = plans.load_base(options.network, options.weights)
    searched = {
        (plans.method(row), row["budget"], row["seed"]): row
        for row in plans.rows("search", base.digest)
    }
    for each in itertools.product(options.methods, options.budgets, options.seeds):
        if each[0] not in CONTROLS and each not in searched:
            bench.error(f"no plan of {each} in results/plans.jsonl: run search.py first")
    data = plans.load_split(options.cifar).data
    planner = plans.Planner(base)
    for seed, budget, method in itertools.product(options.seeds, options.budgets, options.methods):
        if method in CONTROLS:
            plan = planner.control(budget, method)
        else:
            plan = planner.plan(searched[method, budget, seed])
        values = (options.network, base.digest, budget, options.epochs, seed, method)
        work = partial(train, base, plan, data, options.epochs, seed)
        bench.row(dict(zip(KEYS, values, strict=True)), work)


def train(base: plans.Base, plan: lp.Plan, data: Data, epochs: int, seed: int) -> runner.Row:
    model = lp.slim(base.model, plan)
    chosen = torch.arange(0, len(data.train), len(data.train) // 1000)
    images = data.normalise(data.train.subset(chosen).in_memory().pixels)
    recalibrate(model, list(images.split(250)))
    before = evaluate_top1(model, data.test, data)
    config = TrainingConfig(
        epochs=epochs,
        seed=seed,
        channels_last=True,
        teacher_precision=Precision("float32", channels_last=True),
    )
    start = time.perf_counter()
    batches = training_batches(data.train, data, 128, seed=seed)
    result = finetune(model, batches, teacher=base.model, config=config)
    return {
        "plan": plan.digest,
        "loss": result.loss,
        "seconds": round(time.perf_counter() - start, 1),
        "top1_before": before,
        "top1": evaluate_top1(model, data.test, data),
    }


def table(_: argparse.Namespace) -> None:
    groups: dict[tuple[Any, ...], dict[str, dict[int, float]]] = defaultdict(dict)
    for row in runner.rows("trained"):
        methods = groups[tuple(row[key] for key in KEYS[:4])]
        methods.setdefault(row["method"], {})[row["seed"]] = row["top1"]
    for (network, base, budget, epochs), methods in groups.items():
        print(f"{network} (base {base}), {budget:.0%} of the MACs, {epochs} epochs\n")
        lines = []
        for method, found in sorted(methods.items(), key=lambda item: -mean(item[1].values())):
            each = ", ".join(f"{top1:.2f}" for _, top1 in sorted(found.items()))
            against = over(found, methods.get("evolution", {}))
            lines.append([f"`{method}`", each, f"{mean(found.values()):.2f}", against])
        print(
            runner.markdown(["method", "top-1 by seed", "mean", "over evolution"], lines),
            end="\n\n",
        )


def over(found: dict[int, float], evolution: dict[int, float]) -> str:
    differences = [top1 - evolution[seed] for seed, top1 in found.items() if seed in evolution]
    if not differences or found is evolution:
        return ""
    return f"{mean(differences):+.2f} ({min(differences):+.2f} to {max(differences):+.2f})"


if __name__ == "__main__":
    main()
