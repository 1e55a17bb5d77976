"""The whole job on real data, a row for every network, budget, method and seed.

    python bench/end_to_end.py --shared DIR --cifar DIR --network cifar_resnet20 --seeds 0 1 2 \\
        --methods additive none uniform --epochs 5
    python bench/end_to_end.py table --epochs 5

``--shared`` holds ``weights/`` and ``--cifar`` the image tree with ``train/`` and ``test/``. A run
that was stopped goes on from its journal and its last checkpoint in ``--work``. In the table the
mean of several seeds is given, and in brackets the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import plans
import runner

KEYS = ("network", "budget", "method", "seed", "epochs", "trials", "extra")
NAMES = {"additive": "β learned (`additive`)", "none": "β = 0 (`none`)", "uniform": "uniform width"}
HEADINGS = ("network", "method", "seeds", "trials", "search, s", "loss", "top-1 before",
            "recalibrated", "after", "MACs kept, %")  # fmt: skip


def main() -> None:
    bench = runner.Bench("end_to_end", __doc__, KEYS, table)
    bench.tables.add_argument("--epochs", type=int, default=5)
    bench.tables.add_argument("--extra", default="", help="rows with these options of prune")
    bench.argument("--shared", type=Path, required=True)
    bench.argument("--cifar", type=Path, required=True)
    bench.argument("--network", required=True)
    bench.argument("--budget", default="macs=50%")
    bench.argument("--methods", nargs="+", default=["additive", "none", "uniform"])
    bench.argument("--seeds", nargs="+", type=int, default=[0])
    bench.argument("--epochs", type=int, default=5)
    bench.argument("--trials", type=int, default=400)
    bench.argument("--work", type=Path, default=Path("runs/end_to_end"))
    bench.argument("--extra", nargs=argparse.REMAINDER, default=[], help="further options of prune")
    options = bench.parse()
    for seed in options.seeds:
        for method in options.methods:
            key = {
                "network": options.network,
                "budget": options.budget,
                "method": method,
                "seed": seed,
                "epochs": options.epochs,
                "trials": options.trials,
                "extra": " ".join(options.extra),
            }
            bench.row(key, partial(run, options, key))


def run(options: argparse.Namespace, key: Mapping[str, object]) -> runner.Row:
    """Prune, or go on where an earlier run was stopped, and return the summary."""
    name = "-".join(str(key[part]) for part in KEYS).replace("/", "_").replace(" ", "")
    out = options.work / name
    if not (out / "summary.json").exists():
        command = [
            str(Path(sys.executable).with_name("lcprune")), "prune", options.network,
            "--data", f"cifar10:{options.cifar}", "--budget", options.budget,
            "--weights", str(options.shared / "weights" / plans.published(options.network)),
            "--compensation", str(key["method"]), "--seed", str(key["seed"]),
            "--trials", str(options.trials), "--finetune-epochs", str(options.epochs),
            *(() if "--round-to" in options.extra else ("--round-to", "1")),
            "--out", str(out), *options.extra,
        ]  # fmt: skip
        if (out / "run.json").exists():
            command.append("--resume")
        subprocess.run(command, check=True)
    summary = json.loads((out / "summary.json").read_text())
    return {"summary": summary | {"data": "cifar10"}}  # where it lies is nobody else's concern


def table(options: argparse.Namespace) -> None:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in runner.rows("end_to_end"):
        if row["epochs"] == options.epochs and row["extra"] == options.extra:
            groups.setdefault((row["network"], row["method"]), []).append(row["summary"])
    lines = []
    for (network, method), summaries in groups.items():
        learned = method == "additive"
        lines.append([
            network, NAMES[method], str(len(summaries)),
            str(summaries[0]["trials"]) if learned else "1",
            spread([s["search_seconds"] for s in summaries], 0) if learned else "–",
            spread([s["loss_search_best"] for s in summaries], 3),
            *(spread([top1(s, when) for s in summaries], 2)
              for when in ("before", "pruned", "after")),
            spread([100 * kept(s) for s in summaries], 2),
        ])  # fmt: skip
    print(runner.markdown(HEADINGS, lines))


def top1(summary: runner.Row, when: str) -> float:
    """Percent on the test split; older rows have a flat summary."""
    scores = summary.get("scores")
    return float(scores[when]["top1"] if scores else summary[f"top1_{when}"])


def kept(summary: runner.Row) -> float:
    """The share of the MACs that is left."""
    costs = summary.get("costs")
    if costs:
        return float(costs["macs"]["ratio"])
    return float(summary["macs_after"] / summary["macs_before"])


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and where they differ the least and the greatest."""
    low, mean, high = (
        f"{value:.{digits}f}" for value in (min(values), sum(values) / len(values), max(values))
    )
    return mean if low == high else f"{mean} ({low}–{high})"


if __name__ == "__main__":
    main()
