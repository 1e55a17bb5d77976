"""Base networks for studies: trained on all but every tenth image of CIFAR-10's classes.

    python bench/clean_base.py --cifar DIR --network cifar_resnet20 --epochs 60 --out DIR
    python bench/clean_base.py table

As ``lcprune train --hold-out 10``; the same command goes on where it was stopped. A row is the
summary, with the accuracy after every epoch on the 5,000 images held out and the hash of the
weights, which stay in ``--out``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import runner
from lcprune.runs import TrainOptions, train_job

KEYS = ("model", "epochs", "seed", "recipe")
RECIPE = {
    "learning-rate": "0.1",
    "weight-decay": "5e-4",
    "schedule": "one-cycle",
    "batch-size": "128",
    "hold-out": "10",
}


def main() -> None:
    bench = runner.Bench("clean_base", __doc__, KEYS, table)
    bench.argument("--cifar", required=True, help="the folder of CIFAR-10")
    bench.argument("--network", default="cifar_resnet20")
    bench.argument("--epochs", type=int, default=60)
    bench.argument("--seed", type=int, default=0)
    bench.argument("--out", type=Path, required=True, help="the folder of the run")
    options = bench.parse()
    key = {"model": options.network, "epochs": options.epochs, "seed": options.seed}
    bench.row(key | {"recipe": RECIPE}, lambda: train(options))


def train(options: argparse.Namespace) -> runner.Row:
    config = TrainOptions(
        model=options.network,
        data=f"cifar10:{options.cifar}",
        epochs=options.epochs,
        seed=options.seed,
        learning_rate=float(RECIPE["learning-rate"]),
        weight_decay=float(RECIPE["weight-decay"]),
        schedule=RECIPE["schedule"],
        batch_size=int(RECIPE["batch-size"]),
        hold_out=int(RECIPE["hold-out"]),
    )
    resumed = (options.out / "run.json").exists()
    train_job(config, options.out, resume=resumed)
    summary = json.loads((options.out / "summary.json").read_text(encoding="utf-8"))
    return {**summary, "data": "cifar10", "resumed": resumed}


def table(_: argparse.Namespace) -> None:
    lines = []
    for row in runner.rows("clean_base"):
        top1 = row["scores"]["after"]["top1"] if "scores" in row else row["top1"]
        held = row["history"][-1]["top1_held_out"]
        seconds = row["history"][-1]["seconds"]
        lines.append([row["model"], row["epochs"], top1, f"{held:.2f}", f"{seconds:.1f}",
                      row["machine"], row["dtype_train"], row["commit"]])  # fmt: skip
    heads = ["network", "epochs", "test", "held out", "seconds of the last epoch", "machine"]
    print(runner.markdown([*heads, "number format", "commit"], lines))


if __name__ == "__main__":
    main()
