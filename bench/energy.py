"""What a budget of MACs and one of energy leave of a network, side by side. A row for every bound.

    python bench/energy.py --cifar DIR --weights FILE        # a ResNet-56
    python bench/energy.py table

Each bound is searched by ``auto``; with ``--strategy evolution --trials 1`` it cuts the criterion's
own ranking, which is the same for all, at another place. What is shown are the shares of MACs
and energy that are left, and the mean share of the channels that the families of a stage keep.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import numpy as np

import runner
from lcprune.cost import CostModel, read_energy
from lcprune.fitness import CrossEntropy, Precision
from lcprune.runs import Problem, PruneOptions
from lcprune.searching import search

KEYS = ("network", "bound", "energy", "strategy", "trials", "seed")


def main() -> None:
    bench = runner.Bench("energy", __doc__, KEYS, table)
    bench.argument("--cifar", required=True, metavar="DIR")
    bench.argument("--weights", default="default")
    bench.argument("--network", default="cifar_resnet56")
    bench.argument("--bounds", nargs="+", default=["macs=50%", "energy=50%"])
    bench.argument("--energy", default="float32-dram")
    bench.argument("--strategy", default="auto")
    bench.argument("--trials", type=int, default=100)
    bench.argument("--seeds", nargs="+", type=int, default=[0])
    options = bench.parse()
    for seed in options.seeds:
        for bound in options.bounds:
            key = {name: getattr(options, name) for name in KEYS if hasattr(options, name)}
            key |= {"bound": bound, "seed": seed}
            bench.row(key, lambda bound=bound, seed=seed: measure(options, bound, seed))


def measure(options: argparse.Namespace, bound: str, seed: int) -> dict[str, Any]:
    problem = Problem.of(
        PruneOptions(
            model=options.network,
            data=f"cifar10:{options.cifar}",
            weights=options.weights,
            budget=(bound,),
            round_to=1,
            energy=options.energy,
            strategy=options.strategy,
            trials=options.trials,
            recalibrate_images=256,
            fitness_images=512,
            seed=seed,
            device="cpu",
        )
    )
    precision = Precision("float32", channels_last=False, batch=128)
    images = problem.in_precision(problem.validation, precision)
    result = search(
        problem.model,
        problem.graph,
        problem.saliency,
        problem.budget,
        fitness=CrossEntropy(*images, precision.batch, precision),
        recalibrate=problem.recalibration_batches(),
        trials=options.trials,
        strategy=options.strategy,
        seed=seed,
        resources=problem.resources,
    )
    cost = CostModel(problem.graph, ["macs", read_energy(options.energy)])
    left, whole = cost.evaluate(result.best.keep), cost.evaluate()
    kept: dict[str, list[float]] = defaultdict(list)
    for family in problem.graph.families:
        kept[stage(family.name)].append(float(np.mean(result.best.keep[list(family.groups)])))
    return {
        "loss": round(result.loss, 4),
        "shares": {name: round(left[name] / whole[name], 4) for name in whole},
        "kept": {name: round(float(np.mean(shares)), 4) for name, shares in kept.items()},
    }


def stage(family: str) -> str:
    """What is within the blocks of a stage, or the shortcut that goes through several."""
    first, *rest = family.split(".")
    return first if rest and rest[-1] == "conv1" else "shortcuts"


def table(_: argparse.Namespace) -> None:
    rows = list(runner.rows("energy"))
    stages = list(dict.fromkeys(name for row in rows for name in row["kept"]))
    print("| network | bound | trials | MACs | energy | " + " | ".join(stages) + " | loss |")
    print("|---|---|---|" + "---|" * (len(stages) + 3))
    for row in rows:
        shares = [row["shares"][name] for name in ("macs", "energy")]
        cells = [f"{share:.1%}" for share in [*shares, *(row["kept"][s] for s in stages)]]
        searched = f"{row['trials']}, {row['strategy']}" if row["trials"] > 1 else "the ranking"
        names = [row["network"], f"{row['bound']} ({row['energy']})", searched]
        print("| " + " | ".join([*names, *cells, f"{row['loss']:.3f}"]) + " |")


if __name__ == "__main__":
    main()
