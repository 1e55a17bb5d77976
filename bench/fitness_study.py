"""Which fitness foretells the accuracy after fine-tuning? Rows for ``fitness_table.py``.

    python bench/fitness_study.py plans  --weights CLEAN --cifar DIR --work DIR
    python bench/fitness_study.py truth  --weights CLEAN --cifar DIR --work DIR [--part 0/2]
    python bench/fitness_study.py values --weights CLEAN --cifar DIR --work DIR

``plans`` runs short searches on training images and keeps, for each budget, plans of evolution's
best quartile and as many of the rest, the end of each other search, a ranking without compensation
and a uniform width.
``truth`` fine-tunes every plan with two seeds: the noise that no fitness can foretell.
``values`` measures every candidate fitness on every plan. The 5,000 images that the base never saw
are split: 1,000 for fitnesses that want unseen images, 4,000 to judge the trained networks.
Rows that are there are not measured again; each is appended as soon as it is known.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fitness_candidates as candidates
import lcprune as lp
import record
from base_network import load_base
from lcprune.data import ImageSet, training_batches
from lcprune.fitness import Precision, recalibrate
from lcprune.graph import ChannelGraph
from lcprune.ranking import Plan, Ranker
from lcprune.runs import prune_job, resolve
from lcprune.searching import read_journal
from lcprune.training import TrainingConfig, finetune

BUDGETS = ("50%", "30%")
SEARCH_SEEDS = (0, 1)
SEARCH_IMAGES = {"recalibrate_images": 250, "fitness_images": 500}
ROWS = "fitness_study"


class Study:
    """The base network, the parts of the data, and the rows that are there."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        loaded = load_base(options.network, options.weights, options.cifar)
        self.base, self.data, held = loaded.model, loaded.data, loaded.held
        order = torch.randperm(len(held), generator=torch.Generator().manual_seed(0))
        self.unseen: ImageSet = held.subset(order[:1000])
        self.judge: ImageSet = held.subset(order[1000:])
        self.training = TrainingConfig(
            epochs=1,
            dtype=options.dtype,
            teacher_precision=Precision(options.dtype, channels_last=True),
        )

    @cached_property
    def graph(self) -> ChannelGraph:
        return lp.trace(self.base, self.training_images(1, 0)[0])

    @cached_property
    def done(self) -> set[tuple[str, ...]]:
        return {key_of(row) for row in record.rows(ROWS)}

    def append(self, row: dict[str, Any]) -> None:
        record.append(ROWS, row)

    def plans(self) -> list[tuple[str, str, Plan]]:
        """(budget, origin, plan) of every plan that was kept."""
        found = []
        for path in sorted(self.options.work.glob("plan-*.json")):
            raw = json.loads(path.read_text(encoding="utf-8"))
            if self.options.only not in (None, raw["budget"]):
                continue
            found.append((raw["budget"], raw["origin"], Plan.from_json(json.dumps(raw["plan"]))))
        return found

    def cut(self, plan: Plan, images: int = 1000, seed: int = 0) -> nn.Module:
        """The slimmed network with statistics of so many training images."""
        small = lp.slim(self.base, plan)
        recalibrate(small, list(torch.split(self.training_images(images, seed)[0], 250)))
        return small

    def training_images(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Normalised images that the base was trained on, and their labels."""
        order = torch.randperm(
            len(self.data.train), generator=torch.Generator().manual_seed(1000 + seed)
        )
        part = self.data.train.subset(order[:count]).in_memory()
        return self.data.normalise(part.pixels), part.labels


def key_of(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("kind", "budget", "plan", "name", "seed"))


def choose_plans(study: Study) -> None:
    """Search, and write the plans that the study is about."""
    options = study.options
    options.work.mkdir(parents=True, exist_ok=True)
    for budget, count in zip(BUDGETS, options.plans, strict=True):
        kept: dict[str, tuple[str, Plan]] = {}
        for compensation in ("none", "uniform"):
            plan = ranked(study, budget, compensation)
            kept[plan.digest] = (compensation, plan)
        ranker = ranker_of(study, budget, "additive")
        for strategy, seed in itertools.product(options.strategies, SEARCH_SEEDS):
            out = options.work / f"{strategy}-{budget.rstrip('%')}-{seed}"
            config = resolve(
                {
                    "model": options.network,
                    "data": f"cifar10:{options.cifar}",
                    "weights": str(options.weights),
                    "budget": [f"macs={budget}"],
                    "trials": options.trials,
                    **SEARCH_IMAGES,
                    "finetune_epochs": 0,
                    "strategy": strategy,
                    "seed": seed,
                }
            )
            prune_job(config, out, resume=out.exists())
            most = (count - 2) // len(SEARCH_SEEDS) if strategy == "evolution" else 1
            for origin, latent in drawn(out, most):
                plan = ranker.plan(np.array(latent, dtype=np.float64))
                kept.setdefault(plan.digest, (f"{strategy}, seed {seed}: {origin}", plan))
        for digest, (origin, plan) in kept.items():
            path = options.work / f"plan-{budget.rstrip('%')}-{digest[:12]}.json"
            raw = {"budget": budget, "origin": origin, "plan": json.loads(plan.to_json())}
            path.write_text(json.dumps(raw), encoding="utf-8")


def drawn(out: Path, count: int) -> list[tuple[str, Any]]:
    """Latents of a search: its end, others of its best quartile, and half of the rest."""
    found = read_journal(out / "search.sqlite").trials
    trials = sorted((t for t in found if t.eligible), key=lambda trial: trial.loss)
    distinct = list({trial.digest: trial for trial in reversed(trials)}.values())
    distinct.sort(key=lambda trial: trial.loss)
    quarter = max(1, len(distinct) // 4)
    best = spaced(distinct[:quarter], (count + 1) // 2)
    rest = spaced(distinct[quarter:], count // 2)
    origins = ["end"] + ["best quartile"] * (len(best) - 1) + ["rest"] * len(rest)
    return [(o, t.latent) for o, t in zip(origins, [*best, *rest], strict=True)]


def spaced(items: list[Any], count: int) -> list[Any]:
    if count >= len(items):
        return items
    return [items[i * (len(items) - 1) // max(1, count - 1)] for i in range(count)]


def ranker_of(study: Study, budget: str, compensation: str) -> Ranker:
    saliency = lp.saliency(study.base, study.graph, "l2")
    return Ranker(
        study.graph, saliency, lp.Budget.parse([f"macs={budget}"]), compensation=compensation
    )


def ranked(study: Study, budget: str, compensation: str) -> Plan:
    ranker = ranker_of(study, budget, compensation)
    return ranker.plan(ranker.compensation.identity())


def find_truth(study: Study) -> None:
    """Fine-tune every plan with two seeds; the judge's images say how good it is."""
    part, parts = map(int, study.options.part.split("/"))
    for seed in study.options.seeds:
        for i, (budget, origin, plan) in enumerate(study.plans()):
            row = {"kind": "truth", "budget": budget, "plan": plan.digest, "name": "", "seed": seed}
            if i % parts != part or key_of(row) in study.done:
                continue
            model = study.cut(plan)
            batches = training_batches(study.data.train, study.data, 128, seed=seed)
            start = time.perf_counter()
            first = candidates.FirstBatches(batches, study.options.steps)
            finetune(model, first, teacher=study.base, config=replace(study.training, seed=seed))
            top1, loss = candidates.top1_and_loss(model, study.judge, study.data)
            study.append(
                row
                | {"origin": origin, "top1": top1, "loss": loss}
                | {"steps": study.options.steps, "seconds": round(time.perf_counter() - start, 1)}
            )


def measure_values(study: Study) -> None:
    """Every candidate fitness on every plan."""
    offered: dict[str, Callable[[Study, Plan], float]] = candidates.offered(study)
    names = study.options.names or list(offered)
    for name in names:
        for budget, origin, plan in study.plans():
            row = {"kind": "value", "budget": budget, "plan": plan.digest, "name": name, "seed": 0}
            if key_of(row) in study.done:
                continue
            start = time.perf_counter()
            value = offered[name](study, plan)
            seconds = round(time.perf_counter() - start, 3)
            study.append(row | {"origin": origin, "value": value, "seconds": seconds})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("plans", "truth", "values"))
    parser.add_argument("--weights", type=Path, required=True, help="of a base on 45,000 images")
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--strategies", nargs="+", default=["evolution", "auto", "random"])
    parser.add_argument("--plans", type=int, nargs=2, default=(24, 12), help="of 50 and of 30 %%")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1), help="of the fine-tuning")
    parser.add_argument("--steps", type=int, default=700, help="that a plan is fine-tuned for")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--part", default="0/1", help="of the plans, for several processes: 0/2")
    parser.add_argument("--only", help="a budget: 50%% or 30%%")
    parser.add_argument("--names", nargs="+", help="only these candidates")
    options = parser.parse_args()
    study = Study(options)
    {"plans": choose_plans, "truth": find_truth, "values": measure_values}[options.what](study)


if __name__ == "__main__":
    main()
