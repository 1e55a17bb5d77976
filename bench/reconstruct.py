"""What refitting the cut network to the original gives, before and after training.

    python bench/reconstruct.py --cifar DIR --weights DIR                 # without training
    python bench/reconstruct.py --cifar DIR --weights DIR --epochs 1 3    # and after so many
    python bench/reconstruct.py table

The plans are those of one global ranking (β = 0) and of the same share of every family. The cut
network is recalibrated on 1,000 training images, and refitted on the same without labels; all
figures are on the test split, in float32. A row of training has the accuracy after the last epoch,
from the recalibrated network or from the refitted one, with the same seed.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections import defaultdict
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

import lcprune as lp
import plans
import runner
from lcprune.data import Data, load_data, training_batches
from lcprune.fitness import Precision, Reconstruction
from lcprune.training import TrainingConfig, evaluate_top1, finetune

KEYS = ("network", "base", "budget", "plan", "images", "epochs", "seed", "reconstructed")
NETWORKS = ("cifar_resnet20", "cifar_resnet56", "cifar_mobilenet_v2")
PLANS = {"β = 0": "none", "uniform": "uniform"}


def main() -> None:
    bench = runner.Bench("reconstruct", __doc__, KEYS, table)
    bench.argument("--cifar", type=Path, required=True)
    bench.argument("--weights", type=Path, required=True, help="the folder of published weights")
    bench.argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    bench.argument("--budgets", nargs="+", type=float, default=[0.5, 0.3])
    bench.argument("--plans", nargs="+", default=list(PLANS), choices=list(PLANS))
    bench.argument("--images", type=int, default=1000)
    bench.argument("--epochs", nargs="+", type=int, default=[])
    bench.argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    bench.argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = bench.parse()
    data = load_data(f"cifar10:{options.cifar}")
    cuts = [
        Cut(planner, data, budget, plan, options)
        for planner in (
            plans.Planner(plans.load_base(network, options.weights / plans.published(network)))
            for network in options.networks
        )
        for budget, plan in itertools.product(options.budgets, options.plans)
    ]
    for cut in cuts:
        bench.row({**cut.key, "epochs": 0, "seed": None, "reconstructed": None}, cut.measure)
    for epochs, seed, cut, refitted in itertools.product(
        options.epochs, options.seeds, cuts, (False, True)
    ):
        key = {**cut.key, "epochs": epochs, "seed": seed, "reconstructed": refitted}
        bench.row(key, partial(cut.train, epochs, seed, refitted))


class Cut:
    """A network cut to its budget, recalibrated, and refitted."""

    def __init__(
        self,
        planner: plans.Planner,
        data: Data,
        budget: float,
        plan: str,
        options: argparse.Namespace,
    ) -> None:
        self._base, self._data, self._dtype = planner.base, data, options.dtype
        self._plan = planner.control(budget, PLANS[plan])
        self.key: runner.Row = {
            "network": planner.base.network,
            "base": planner.base.digest,
            "budget": budget,
            "plan": plan,
            "images": options.images,
        }

    @cached_property
    def _batches(self) -> list[torch.Tensor]:
        train = self._data.train
        chosen = torch.arange(0, len(train), len(train) // self.key["images"])
        pixels = (pixels for pixels, _ in train.subset(chosen).batches(250))
        return [self._data.normalise(batch) for batch in pixels]

    @cached_property
    def _recalibrated(self) -> nn.Module:
        small = lp.slim(self._base.model, self._plan)
        lp.recalibrate(small, self._batches)
        return small

    @cached_property
    def _refitted(self) -> tuple[nn.Module, Reconstruction, float]:
        small = copy.deepcopy(self._recalibrated)
        start = time.perf_counter()
        report = lp.reconstruct(self._base.model, small, self._plan, self._batches)
        return small, report, time.perf_counter() - start

    def _top1(self, model: nn.Module) -> float:
        return evaluate_top1(model, self._data.test, self._data)

    def measure(self) -> runner.Row:
        """Accuracies without a training step."""
        small, report, seconds = self._refitted
        return {
            "top1_base": self._top1(self._base.model),
            "top1_recalibrated": self._top1(self._recalibrated),
            "top1": self._top1(small),
            "seconds": round(seconds, 1),
            "layers": {
                refit.layer: [round(refit.before, 4), round(refit.after, 4), refit.ridge]
                for refit in report.layers
            },
            "left_alone": dict(report.left_alone),
        }

    def train(self, epochs: int, seed: int, refitted: bool) -> runner.Row:
        """Accuracy after training, from one of both beginnings."""
        model = copy.deepcopy(self._refitted[0] if refitted else self._recalibrated)
        config = TrainingConfig(
            epochs=epochs,
            seed=seed,
            dtype=self._dtype,
            channels_last=True,
            teacher_precision=Precision(self._dtype, channels_last=True),
        )
        batches = training_batches(self._data.train, self._data, 128, seed=seed)
        start = time.perf_counter()
        result = finetune(model, batches, teacher=self._base.model, config=config)
        return {
            "top1": self._top1(model),
            "loss": result.loss,
            "dtype": self._dtype,
            "seconds": round(time.perf_counter() - start, 1),
        }


def table(_: argparse.Namespace) -> None:
    cuts: dict[tuple[Any, ...], list[runner.Row]] = defaultdict(list)
    for row in runner.rows("reconstruct"):
        cuts[tuple(row[key] for key in KEYS[:5])].append(row)
    lines, trained = [], []
    for (network, _, budget, plan, images), rows in cuts.items():
        name = [network, f"{budget:.0%}", plan]
        for row in rows:
            if not row["epochs"]:
                figures = [f"{row[k]:.2f}" for k in ("top1_base", "top1_recalibrated", "top1")]
                lines.append([*name, images, *figures, f"{row['seconds']:.0f}"])
        for epochs in sorted({row["epochs"] for row in rows} - {0}):
            means = []
            for refitted in (False, True):
                found = [
                    row["top1"]
                    for row in rows
                    if row["epochs"] == epochs and row["reconstructed"] is refitted
                ]
                means.append(f"{mean(found):.2f} ({len(found)})" if found else "–")
            trained.append([*name, epochs, *means])
    head = ["network", "MACs", "plan", "images", "base", "recalibrated", "reconstructed", "seconds"]
    print(runner.markdown(head, lines), end="\n\n")
    head = ["network", "MACs", "plan", "epochs", "from recalibrated (seeds)", "from reconstructed"]
    print(runner.markdown(head, trained))


if __name__ == "__main__":
    main()
