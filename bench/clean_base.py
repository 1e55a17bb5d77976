"""Base networks for studies: trained on all but every tenth image of CIFAR-10's classes.

    python bench/clean_base.py --data DATA --network cifar_resnet20 --epochs 60 --out DIR
    python bench/clean_base.py --data DATA --network cifar_resnet20 --epochs 60 --out DIR  # goes on

Runs ``lcprune train --hold-out 10`` and appends its summary, with the accuracy after every epoch
on the 5,000 images held out, to ``results/clean_base.jsonl``. The weights stay in DIR; the row has
their hash. DATA is a folder with ``train/CLASS/*`` and ``test/CLASS/*``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import record
from lcprune.cli import main as lcprune

RECIPE = {
    "learning-rate": "0.1",
    "weight-decay": "5e-4",
    "schedule": "one-cycle",
    "batch-size": "128",
    "hold-out": "10",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder of CIFAR-10")
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the run")
    options = parser.parse_args()
    resumed = (options.out / "run.json").exists()
    line = [
        *("train", options.network, "--data", f"cifar10:{options.data}"),
        *("--epochs", str(options.epochs), "--seed", str(options.seed)),
        *("--out", str(options.out)),
        *(text for key, value in RECIPE.items() for text in (f"--{key}", value)),
        *(["--resume"] if resumed else []),
    ]
    code = lcprune(line)
    if code:
        raise SystemExit(code)
    summary = json.loads((options.out / "summary.json").read_text(encoding="utf-8"))
    record.append(
        "clean_base", {**summary, "data": "cifar10", "recipe": RECIPE, "resumed": resumed}
    )


if __name__ == "__main__":
    main()
