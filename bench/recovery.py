"""What distillation, the learning rate and a moving average are worth after the cut.

    python bench/recovery.py --weights resnet20-clean.safetensors --cifar DIR --work DIR

A plan for every budget is searched once, on images that the base network never saw. Every variant
then trains the same cut and recalibrated network, with the same seeds: a row each in
``results/recovery.jsonl``, with the accuracy after the last epoch on the 5,000 images held out and
on the test split. The learning rate of ``auto`` is that of one range test a budget, seed 0. Rows
that are there are not measured again (``base`` is the beginning of the weights' SHA-256); seeds
are the outer loop, so that what is there can be compared at any time.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import lcprune as lp
import record
from base_network import load_base
from lcprune.artifact import read_plan
from lcprune.data import Data, ImageSet, training_batches
from lcprune.fitness import Precision, recalibrate
from lcprune.runs import prune_job, resolve
from lcprune.training import TrainingConfig, evaluate_top1, find_learning_rate, finetune

BASE = TrainingConfig()
VARIANTS: dict[str, dict[str, object]] = {
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="of a base on 45,000 images")
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where the plans are kept")
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--budgets", nargs="+", default=["50%", "30%"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    loaded = load_base(options.network, options.weights, options.cifar)
    base, data, held = loaded.model, loaded.data, loaded.held
    done = {tuple(row[key] for key in KEYS) for row in record.rows("recovery")}
    rates: dict[str, float] = {}
    for seed in options.seeds:
        for budget in options.budgets:
            small = None
            for variant in options.variants:
                key = (options.network, loaded.digest, budget, options.epochs, seed, variant)
                if key in done:
                    continue
                small = small or cut(base, data, plan_directory(options, budget))
                precision = Precision(options.dtype, channels_last=True)
                config = replace(
                    BASE,
                    epochs=options.epochs,
                    seed=seed,
                    dtype=options.dtype,
                    channels_last=True,
                    teacher_precision=precision,
                )
                changes = dict(VARIANTS[variant])
                if changes.get("learning_rate") == "auto":
                    rates[budget] = rates.get(budget) or range_test(small, base, data, config)
                    changes["learning_rate"] = rates[budget]
                config = replace(config, **changes)
                row = dict(zip(KEYS, key, strict=True))
                record.append("recovery", row | trained(small, base, data, held, config))


def plan_directory(options: argparse.Namespace, budget: str) -> Path:
    """The directory of a finished run without fine-tuning for a budget."""
    out: Path = options.work / f"{options.network}-{budget.rstrip('%')}"
    config = resolve(
        {
            "model": options.network,
            "data": f"cifar10:{options.cifar}",
            "weights": str(options.weights),
            "budget": [f"macs={budget}"],
            "trials": options.trials,
            "finetune_epochs": 0,
            "hold_out": 10,
        }
    )
    prune_job(config, out, resume=out.exists())
    return out


def cut(base: nn.Module, data: Data, directory: Path) -> nn.Module:
    """The network as fine-tuning finds it."""
    small = lp.slim(base, read_plan(directory))
    chosen = torch.arange(0, len(data.train), len(data.train) // 1000)
    recalibrate(small, list(inputs(data.train.subset(chosen), data)))
    return small


def inputs(images: ImageSet, data: Data) -> Iterator[Tensor]:
    for pixels, _ in images.batches(250):
        yield data.normalise(pixels)


def range_test(small: nn.Module, base: nn.Module, data: Data, config: TrainingConfig) -> float:
    batches = training_batches(data.train, data, 128, seed=0)
    config = replace(config, seed=0)
    return find_learning_rate(small, batches, teacher=base, config=config).suggested


def trained(
    small: nn.Module, base: nn.Module, data: Data, held: ImageSet, config: TrainingConfig
) -> dict[str, object]:
    model = copy.deepcopy(small)
    batches = training_batches(data.train, data, 128, seed=config.seed)
    start = time.perf_counter()
    result = finetune(model, batches, teacher=base, config=config)
    return {
        "learning_rate": config.learning_rate,
        "alpha": config.alpha,
        "ema": config.ema,
        "loss": result.loss,
        "seconds": round(time.perf_counter() - start, 1),
        "top1_held_out_before": evaluate_top1(small, held, data),
        "top1_held_out": evaluate_top1(model, held, data),
        "top1": evaluate_top1(model, data.test, data),
    }


if __name__ == "__main__":
    main()
