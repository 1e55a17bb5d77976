"""The whole job on real data, a row for every network, budget, method and seed.

    python bench/end_to_end.py --shared DIR --cifar DIR --network cifar_resnet20 --seeds 0 1 2 \
        --methods additive none uniform --epochs 5

``--shared`` holds ``weights/`` and ``--cifar`` the image tree with ``train/`` and ``test/``. Rows
that are in ``results/end_to_end.jsonl`` already are not measured again; a run that was stopped
goes on from its journal and its last checkpoint in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import record

KEYS = ("network", "budget", "method", "seed", "epochs", "trials", "extra")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--budget", default="macs=50%")
    parser.add_argument("--methods", nargs="+", default=["additive", "none", "uniform"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--work", type=Path, default=Path("runs/end_to_end"))
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    done = {tuple(json.dumps(row.get(key)) for key in KEYS) for row in record.rows("end_to_end")}
    for seed in options.seeds:
        for method in options.methods:
            row = {
                "network": options.network,
                "budget": options.budget,
                "method": method,
                "seed": seed,
                "epochs": options.epochs,
                "trials": options.trials,
                "extra": " ".join(options.extra),
            }
            if tuple(json.dumps(row[key]) for key in KEYS) not in done:
                record.append("end_to_end", row | {"summary": run(options, row)})


def run(options: argparse.Namespace, row: dict[str, object]) -> dict[str, object]:
    """Prune, or go on where an earlier run was stopped, and return the summary."""
    name = "-".join(str(row[key]) for key in KEYS).replace("/", "_").replace(" ", "")
    out = options.work / name
    if not (out / "summary.json").exists():
        command = [
            str(Path(sys.executable).with_name("lcprune")), "prune", options.network,
            "--data", f"cifar10:{options.cifar}", "--budget", options.budget,
            "--weights", str(options.shared / "weights" / weights_file(options.network)),
            "--compensation", str(row["method"]), "--seed", str(row["seed"]),
            "--trials", str(options.trials), "--finetune-epochs", str(options.epochs),
            "--out", str(out), *options.extra,
        ]  # fmt: skip
        if (out / "run.json").exists():
            command.append("--resume")
        subprocess.run(command, check=True)
    summary: dict[str, object] = json.loads((out / "summary.json").read_text())
    return summary | {"data": "cifar10"}  # where it lies says nothing to anybody else


def weights_file(network: str) -> str:
    """The published weights of a network of the zoo."""
    return f"cifar10_{network.removeprefix('cifar_')}.safetensors"


if __name__ == "__main__":
    main()
