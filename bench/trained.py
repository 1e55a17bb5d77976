"""How good the plans of searches are after fine-tuning, on the test split.

    python bench/search.py …                 # whose best plans are rows of results/plans.jsonl
    python bench/trained.py --cifar DIR --epochs 1 --seeds 0 1
    python bench/trained.py table
    python bench/trained.py table --plot docs/widths.svg

``auto``, ``evolution``, ``affine`` and ``random`` are the best plans that ``search.py`` found with
a seed; ``none`` is β = 0 and ``uniform`` one width for all, each one plan for all seeds. Every plan
is cut, recalibrated on 1,000 images, and trained with the defaults and the same seed, so that
methods of a seed see the same batches. A row has the accuracy after the last epoch on the test
split. Seeds are the outer loop.

In the table accuracies are percent, by seed; ``over evolution`` is the mean of the differences to
evolution with the same seed, and their range. The picture has the widths that three methods leave
at half the MACs, and their accuracies.
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
    bench.tables.add_argument("--plot", type=Path, help="a picture, FILE.svg")
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


def table(options: argparse.Namespace) -> None:
    if options.plot:
        options.plot.write_text(picture(), encoding="utf-8")
        return
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


STYLE = (
    "text{font:13px sans-serif;fill:#24292f}.note{font-size:11px;fill:#57606a}"
    ".whole{fill:#d0d7de}.kept{fill:#0969da}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}"
    ".whole{fill:#3d444d}.kept{fill:#4493f8}}"
)
PANELS = {
    "none": "one global ranking (β = 0)",
    "uniform": "the same width everywhere",
    "evolution": "ranking with β learned",
}


def picture(budget: float = 0.5, epochs: int = 1, width: int = 240, height: int = 128) -> str:
    """An SVG of the channels that the plans of seed 0 keep of every family, and accuracies."""
    base = plans.load_base("cifar_resnet20", plans.BASES["53f40250"])
    planner = plans.Planner(base)
    searched = {plans.method(r): r for r in plans.rows("search", base.digest)
                if (r["budget"], r["seed"]) == (budget, 0)}  # fmt: skip
    found: dict[str, list[runner.Row]] = defaultdict(list)
    for row in runner.rows("trained"):
        if (row["base"], row["budget"], row["epochs"]) == (base.digest, budget, epochs):
            found[row["method"]].append(row)
    parts = []
    for number, (name, title) in enumerate(PANELS.items()):
        plan = planner.plan(searched[name]) if name in searched else planner.control(budget, name)
        before, after = (mean(row[key] for row in found[name]) for key in ("top1_before", "top1"))
        left = 10 + number * (width + 20)
        parts.append(f'<text x="{left}" y="16">{title}</text>')
        for bar, (whole, kept) in enumerate(widths(planner, plan)):
            for kind, channels in (("whole", whole), ("kept", kept)):
                tall = height * channels / 64
                parts.append(
                    f'<rect class="{kind}" x="{left + 20 * bar}" y="{30 + height - tall:.0f}" '
                    f'width="15" height="{tall:.0f}"/>'
                )
        note = f"{before:.1f} % recalibrated, {after:.1f} % after one epoch"
        parts.append(f'<text class="note" x="{left}" y="{height + 50}">{note}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * width + 60} {height + 60}">\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def widths(planner: plans.Planner, plan: lp.Plan) -> list[tuple[int, int]]:
    """Of every family of channels how many there are, and how many a plan keeps."""
    found = []
    for family in planner.graph.families:
        tensor = f"{family.name}.weight"
        count = len(family.groups)
        found.append((count, len(plan.kept.get((tensor, 0), range(count)))))
    return found


if __name__ == "__main__":
    main()
