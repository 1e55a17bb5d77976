"""How low a search gets in how many seconds, by strategy.

    python bench/search.py --network digits_resnet --data digits --budgets 0.5 0.3 \
        --methods auto widths cmaes evolution affine random --seeds 0 1 2 3 4
    python bench/search.py --network cifar_resnet20 --data cifar10:DIR --weights FILE --budgets 0.5
    python bench/search_table.py

Without weights the network is trained first, for 25 epochs with seed 0.

A method is a strategy; ``affine``, LeGR's compensation searched by evolution; ``…-rank``, with β in
units of ranks within a family; ``widths``, auto without its probes; or ``cmaes`` over β. All
methods of a seed see the same images: ``--recalibrate-images`` and ``--fitness-images`` of those
that the base was trained on (with ``--hold-out 10`` the fitness sees others). A row each in
``results/search.jsonl``: for every trial the seconds so far (planning and surgery included) and
the best loss so far, and ``held_loss``, the best plan's loss on as many other images; with
``--plans DIR`` the best plan too, for ``trained.py``. Rows that
are there are not measured again; seeds are the outer loop, methods the inner one, so that what the
machine does otherwise falls on all methods alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import record
from cmaes_strategy import CmaEs
from lcprune.cost import Budget
from lcprune.criteria import saliency
from lcprune.data import ImageSet, hold_out, load_data, training_batches
from lcprune.fitness import CrossEntropy, choose_precision, recalibrate
from lcprune.models import build, load_weights
from lcprune.ranking import Ranker
from lcprune.searching import STRATEGIES, Auto, SearchResult, Strategy, search
from lcprune.slimming import slim
from lcprune.tracing import trace
from lcprune.training import TrainingConfig, finetune

KEYS = ("network", "base", "budget", "method", "seed", "trials", "images")
COMPENSATIONS = {
    "affine": "affine",
    "evolution-rank": "additive:family-rank",
    "cmaes-rank": "additive:family-rank",
}
OWN: dict[str, Callable[[Ranker, int, int], Strategy]] = {
    "cmaes": CmaEs,
    "cmaes-rank": CmaEs,
    "widths": partial(Auto, probed=0.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="digits or cifar10:DIR")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--base", default="trained", help="what to call the weights in the rows")
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.5])
    parser.add_argument("--methods", nargs="+", default=["auto", "evolution"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--recalibrate-images", type=int, default=500)
    parser.add_argument("--fitness-images", type=int, default=1000)
    parser.add_argument("--hold-out", type=int, default=0)
    parser.add_argument("--plans", type=Path, help="a directory for the best plan of each search")
    parser.add_argument("--show", action="store_true", help="print, without a row")
    options = parser.parse_args()
    bench = Bench(options)
    done = {tuple(json.dumps(row[k]) for k in KEYS) for row in record.rows("search")}
    for seed, budget, method in itertools.product(options.seeds, options.budgets, options.methods):
        row = {
            "network": options.network,
            "base": options.base,
            "budget": budget,
            "method": method,
            "seed": seed,
            "trials": options.trials,
            "images": [options.recalibrate_images, options.fitness_images],
        }
        if tuple(json.dumps(row[key]) for key in KEYS) in done and not options.show:
            continue
        row |= bench.measure(method, budget, seed)
        if not options.show:
            record.append("search", row)
        marks = {n: row["best"][n - 1] for n in (50, 100, 200, 400) if n <= len(row["best"])}
        print(method, budget, seed, marks, row["seconds"][-1], "held", row["held_loss"], flush=True)


class Bench:
    """The network, and for every seed the images."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        data = load_data(options.data)
        self.data, held = hold_out(data, options.hold_out) if options.hold_out else (data, None)
        self.judge: ImageSet = self.data.train if held is None else held
        self.model = build(options.network, classes=10, input_shape=data.input_shape)
        if options.weights:
            load_weights(self.model, str(options.weights), options.network)
        else:
            batches = training_batches(self.data.train, self.data, 64, seed=0)
            finetune(self.model, batches, config=TrainingConfig(epochs=25, learning_rate=0.1))
        self.model.eval()
        example = self.data.normalise(self.data.train.in_memory().pixels[:1])
        self.graph = trace(self.model, example)
        self.saliency = saliency(self.model, self.graph, "l2")
        self.precision = choose_precision(self.model, self.images(self.data.train, 0, 250)[0])

    def measure(self, method: str, budget: float, seed: int) -> dict[str, Any]:
        options, precision = self.options, self.precision
        count = options.fitness_images
        batches = self.recalibration(seed)
        # Images of the fitness come after those of the recalibration in the same order.
        start = 0 if options.hold_out else options.recalibrate_images
        fitness, other = (
            CrossEntropy(*self.images(self.judge, seed, count, begin), precision.batch, precision)
            for begin in (start, start + count)
        )
        compensation = COMPENSATIONS.get(method, "additive")
        strategy: str | Strategy = method if method in STRATEGIES else "evolution"
        if method in OWN:
            bound = Budget(macs=budget)
            ranker = Ranker(self.graph, self.saliency, bound, compensation=compensation)
            strategy = OWN[method](ranker, options.trials, seed)
        result: SearchResult = search(
            self.model,
            self.graph,
            self.saliency,
            Budget(macs=budget),
            fitness=fitness,
            recalibrate=batches,
            prepare=precision.apply,
            trials=options.trials,
            compensation=compensation,
            strategy=strategy,
            seed=seed,
        )
        if options.plans:
            options.plans.mkdir(parents=True, exist_ok=True)
            path = options.plans / f"{method}-{budget:.0%}-{seed}.json"
            path.write_text(result.plan.to_json(), encoding="utf-8")
        small = precision.apply(slim(self.model, result.plan))
        recalibrate(small, batches)
        within = [t.loss if t.eligible else float("inf") for t in result.history]
        return {
            "seconds": rounded(itertools.accumulate(t.seconds for t in result.history), 2),
            "best": rounded(itertools.accumulate(within, min), 4),
            "held_loss": round(other(small), 4),
            "planning": share(result, ("plan", "slim", "prepare", "ask")),
            "precision": [precision.dtype, precision.channels_last, precision.batch],
        }

    def recalibration(self, seed: int) -> list[Tensor]:
        images, _ = self.images(self.data.train, seed, self.options.recalibrate_images)
        return list(self.precision.cast(images).split(self.precision.batch))

    def images(self, of: ImageSet, seed: int, count: int, start: int = 0) -> tuple[Tensor, Tensor]:
        """Normalised images and labels, from place ``start`` of a seed's order on."""
        order = torch.randperm(len(of), generator=torch.Generator().manual_seed(seed))
        part = of.subset(order[start : start + count]).in_memory()
        return self.data.normalise(part.pixels), part.labels


def share(result: SearchResult, steps: tuple[str, ...]) -> float:
    """The share of a search's seconds that these steps take."""
    own = sum(trial.timing.get(step, 0.0) for trial in result.history for step in steps)
    return round(own / result.seconds, 4)


def rounded(values: Any, digits: int) -> list[float]:
    return [round(value, digits) for value in values]


if __name__ == "__main__":
    main()
