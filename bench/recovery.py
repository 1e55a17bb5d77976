"""What distillation, the learning rate and a moving average are worth after the cut.

    python bench/recovery.py --cifar DIR --work DIR --epochs 1 --trials 60
    python bench/recovery.py table

A plan for every budget is searched once, on images that the base network never saw, and stays in
``--work``. Every variant then trains the same cut and recalibrated network, with the same seeds. A
row has the accuracy after the last epoch on the 5,000 images held out and on the test split. The
learning rate of ``auto`` is that of one range test a budget, seed 0. Seeds are the outer loop, so
that what is there can be compared at any time. The table has means over the seeds that there are.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections import defaultdict
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

import lcprune as lp
import plans
import runner
from lcprune.data import training_batches
from lcprune.fitness import Precision, recalibrate
from lcprune.runs import PruneOptions, prune_job
from lcprune.training import TrainingConfig, evaluate_top1, find_learning_rate, finetune

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "no distillation": {"alpha": 0.0},
    "half distillation": {"alpha": 0.5},
    "only distillation": {"alpha": 1.0},
    "rate 0.01": {"learning_rate": 0.01},
    "rate 0.02": {"learning_rate": 0.02},
    "rate 0.1": {"learning_rate": 0.1},
    "rate auto": {"learning_rate": "auto"},
    "average 0.99": {"ema": 0.99},
    "average 0.998": {"ema": 0.998},
}
KEYS = ("network", "base", "budget", "epochs", "seed", "variant")


def main() -> None:
    bench = runner.Bench("recovery", __doc__, KEYS, table)
    bench.argument("--weights", type=Path, default=plans.BASES["53f40250"])
    bench.argument("--cifar", type=Path, required=True)
    bench.argument("--work", type=Path, required=True, help="where the plans are kept")
    bench.argument("--network", default="cifar_resnet20")
    bench.argument("--budgets", nargs="+", default=["50%", "30%"])
    bench.argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    bench.argument("--epochs", type=int, default=5)
    bench.argument("--trials", type=int, default=150)
    bench.argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    bench.argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options = bench.parse()
    base = plans.load_base(options.network, options.weights)
    split = plans.load_split(options.cifar)
    cuts = {budget: Cut(base, split, budget, options) for budget in options.budgets}
    for seed, budget, variant in itertools.product(
        options.seeds, options.budgets, options.variants
    ):
        values = (options.network, base.digest, budget, options.epochs, seed, variant)
        work = partial(cuts[budget].train, seed, VARIANTS[variant])
        bench.row(dict(zip(KEYS, values, strict=True)), work)


class Cut:
    """A network at its budget, as fine-tuning finds it, and what that is measured with."""

    def __init__(
        self, base: plans.Base, split: plans.Split, budget: str, options: argparse.Namespace
    ) -> None:
        self._base, self._split, self._budget, self._options = base, split, budget, options

    @cached_property
    def _small(self) -> nn.Module:
        data = self._split.data
        plan = (self._search() / "plan.json").read_text(encoding="utf-8")
        small = lp.slim(self._base.model, lp.Plan.from_json(plan))
        chosen = data.train.subset(torch.arange(0, len(data.train), len(data.train) // 1000))
        recalibrate(small, [data.normalise(pixels) for pixels, _ in chosen.batches(250)])
        return small

    def _search(self) -> Path:
        """The directory of a finished run without fine-tuning."""
        options = self._options
        out: Path = options.work / f"{options.network}-{self._budget.rstrip('%')}"
        config = PruneOptions(
            model=options.network,
            data=f"cifar10:{options.cifar}",
            weights=str(options.weights),
            budget=(f"macs={self._budget}",),
            round_to=1,
            trials=options.trials,
            finetune_epochs=0,
            hold_out=10,
        )
        prune_job(config, out, resume=out.exists())
        return out

    @cached_property
    def _rate(self) -> float:
        """What the range test suggests with seed 0."""
        batches = training_batches(self._split.data.train, self._split.data, 128, seed=0)
        config = self._config(seed=0)
        return find_learning_rate(
            self._small, batches, teacher=self._base.model, config=config
        ).suggested

    def _config(self, seed: int) -> TrainingConfig:
        dtype = self._options.dtype
        return TrainingConfig(
            epochs=self._options.epochs,
            seed=seed,
            dtype=dtype,
            channels_last=True,
            teacher_precision=Precision(dtype, channels_last=True),
        )

    def train(self, seed: int, changes: dict[str, Any]) -> runner.Row:
        """Train a copy, and measure it before and after."""
        if changes.get("learning_rate") == "auto":
            changes = changes | {"learning_rate": self._rate}
        config = replace(self._config(seed), **changes)
        model, data, held = copy.deepcopy(self._small), self._split.data, self._split.held
        batches = training_batches(data.train, data, 128, seed=config.seed)
        start = time.perf_counter()
        result = finetune(model, batches, teacher=self._base.model, config=config)
        return {
            "learning_rate": config.learning_rate,
            "alpha": config.alpha,
            "ema": config.ema,
            "loss": result.loss,
            "seconds": round(time.perf_counter() - start, 1),
            "top1_held_out_before": evaluate_top1(self._small, held, data),
            "top1_held_out": evaluate_top1(model, held, data),
            "top1": evaluate_top1(model, data.test, data),
        }


def table(_: argparse.Namespace) -> None:
    groups: dict[tuple[Any, ...], dict[str, list[runner.Row]]] = defaultdict(dict)
    for row in runner.rows("recovery"):
        variants = groups[tuple(row[key] for key in KEYS[:4])]
        variants.setdefault(row["variant"], []).append(row)
    for (network, base, budget, epochs), variants in groups.items():
        print(f"{network} (base {base}), {budget} of the MACs, {epochs} epochs\n")
        lines = []
        for variant, rows in variants.items():
            keys = ("top1_held_out_before", "top1_held_out", "top1")
            figures = [f"{mean(row[key] for row in rows):.2f}" for key in keys]
            lines.append([variant, len(rows), *figures])
        print(
            runner.markdown(["variant", "seeds", "before", "held out", "test"], lines), end="\n\n"
        )


if __name__ == "__main__":
    main()
