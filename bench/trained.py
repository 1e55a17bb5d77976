"""How good the plans of searches are after fine-tuning, on the test split.

    python bench/search.py ... --plans PLANS
    python bench/trained.py --weights CLEAN --cifar DIR --plans PLANS --epochs 1 --seeds 0 1
    python bench/trained_table.py

``auto``, ``evolution``, ``affine`` and ``random`` are the best plans that ``search.py`` found with
a seed; ``none`` is β = 0 and ``uniform`` one width for all, each one plan for all seeds. Every plan
is cut, recalibrated on 1,000 images, and trained with the defaults and the same seed, so that
methods of a seed see the same batches. A row each in ``results/trained.jsonl``, with the accuracy
after the last epoch on the test split. Rows that are there are not measured again; seeds are the
outer loop.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import torch

import lcprune as lp
import record
from base_network import load_base
from lcprune.data import training_batches
from lcprune.fitness import Precision, recalibrate
from lcprune.ranking import Plan, Ranker
from lcprune.training import TrainingConfig, evaluate_top1, finetune

KEYS = ("network", "base", "budget", "epochs", "seed", "method")
CONTROLS = ("none", "uniform")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="of a base on 45,000 images")
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--plans", type=Path, required=True, help="what search.py --plans wrote")
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.5, 0.3])
    parser.add_argument("--methods", nargs="+", default=["auto", "evolution", *CONTROLS, "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    searched = [method for method in options.methods if method not in CONTROLS]
    for each in itertools.product(searched, options.budgets, options.seeds):
        if not plan_file(options.plans, *each).is_file():
            parser.error(f"{plan_file(options.plans, *each)}: no such plan (search.py --plans)")
    loaded = load_base(options.network, options.weights, options.cifar)
    base, data = loaded.model, loaded.data
    chosen = torch.arange(0, len(data.train), len(data.train) // 1000)
    images = data.normalise(data.train.subset(chosen).in_memory().pixels)
    graph = lp.trace(base, images[:1])
    saliency = lp.saliency(base, graph, "l2")
    done = {tuple(row[key] for key in KEYS) for row in record.rows("trained")}
    for seed, budget, method in itertools.product(options.seeds, options.budgets, options.methods):
        key = (options.network, loaded.digest, budget, options.epochs, seed, method)
        if key in done:
            continue
        if method in CONTROLS:
            ranker = Ranker(graph, saliency, lp.Budget(macs=budget), compensation=method)
            plan = ranker.plan(ranker.compensation.identity())
        else:
            path = plan_file(options.plans, method, budget, seed)
            plan = Plan.from_json(path.read_text(encoding="utf-8"))
        model = lp.slim(base, plan)
        recalibrate(model, list(images.split(250)))
        before = evaluate_top1(model, data.test, data)
        config = TrainingConfig(
            epochs=options.epochs,
            seed=seed,
            channels_last=True,
            teacher_precision=Precision("float32", channels_last=True),
        )
        start = time.perf_counter()
        batches = training_batches(data.train, data, 128, seed=seed)
        result = finetune(model, batches, teacher=base, config=config)
        row = dict(zip(KEYS, key, strict=True)) | {
            "plan": plan.digest,
            "loss": result.loss,
            "seconds": round(time.perf_counter() - start, 1),
            "top1_before": before,
            "top1": evaluate_top1(model, data.test, data),
        }
        record.append("trained", row)
        print(budget, seed, method, before, row["top1"], row["seconds"], flush=True)


def plan_file(plans: Path, method: str, budget: float, seed: int) -> Path:
    """Where ``search.py`` puts the best plan of a search."""
    return plans / f"{method}-{budget:.0%}-{seed}.json"


if __name__ == "__main__":
    main()
