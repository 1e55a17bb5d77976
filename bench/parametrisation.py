"""In which units β is drawn and how coupled layers are reduced: the best loss by trials.

    python bench/parametrisation.py --shared DIR --cifar DIR --network cifar_resnet20 \
        --criteria l2 --reductions sum mean max --scales raw std rank --trials 200 --seeds 0 1 2

Every channel group is prunable, residual ones included. ``losses`` are the best so far after 1,
50, 100, 200 and 400 trials on ``--fitness-images`` training images; ``held_loss`` is the best
plan's on as many others that no search looks at (the published ResNets have seen them in their
own training, so they judge the search, not the accuracy). Rows that are in
``results/parametrisation.jsonl`` are not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch

import record
from end_to_end import weights_file
from lcprune.cost import Budget
from lcprune.criteria import saliency
from lcprune.data import load_data
from lcprune.fitness import CrossEntropy, choose_precision, recalibrate
from lcprune.models import build, load_weights
from lcprune.searching import search
from lcprune.slimming import slim
from lcprune.tracing import trace

KEYS = ("network", "budget", "criterion", "reduction", "scale", "seed", "trials", "images")
MARKS = (1, 50, 100, 200, 400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--criteria", nargs="+", default=["l2"])
    parser.add_argument("--reductions", nargs="+", default=["sum", "mean", "max"])
    parser.add_argument("--scales", nargs="+", default=["raw", "std", "rank"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--recalibrate-images", type=int, default=500)
    parser.add_argument("--fitness-images", type=int, default=1000)
    options = parser.parse_args()

    data = load_data(f"cifar10:{options.cifar}")
    model = build(options.network, classes=len(data.classes), input_shape=data.input_shape)
    weights = options.shared / "weights" / weights_file(options.network)
    load_weights(model, str(weights), options.network)
    model.eval()
    images = (options.recalibrate_images, options.fitness_images, options.fitness_images)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    recalibration, validation, held = order[: sum(images)].split(images)
    pixels = data.train.pixels
    precision = choose_precision(model, data.normalise(pixels[recalibration]))
    batches = precision.cast(data.normalise(pixels[recalibration])).split(precision.batch)
    fitness, held_fitness = (
        CrossEntropy(
            data.normalise(pixels[chosen]), data.train.labels[chosen], precision.batch, precision
        )
        for chosen in (validation, held)
    )
    graph = trace(model, data.normalise(pixels[:1]))
    done = {tuple(json.dumps(row[k]) for k in KEYS) for row in record.rows("parametrisation")}
    for seed, criterion, reduction, scale in itertools.product(
        options.seeds, options.criteria, options.reductions, options.scales
    ):
        row = {
            "network": options.network,
            "budget": options.budget,
            "criterion": criterion,
            "reduction": reduction,
            "scale": scale,
            "seed": seed,
            "trials": options.trials,
            "images": list(images[:2]),
        }
        if tuple(json.dumps(row[key]) for key in KEYS) in done:
            continue
        result = search(
            model,
            graph,
            saliency(model, graph, criterion, reduction=reduction, seed=seed),
            Budget(macs=options.budget),
            fitness=fitness,
            recalibrate=batches,
            prepare=precision.apply,
            trials=options.trials,
            compensation=f"additive:{scale}",
            seed=seed,
        )
        best = precision.apply(slim(model, result.plan))
        recalibrate(best, batches)
        losses = {
            str(mark): round(min(trial.loss for trial in result.history[:mark]), 4)
            for mark in MARKS
            if mark <= len(result.history)
        }
        row |= {"losses": losses, "held_loss": round(held_fitness(best), 4)}
        record.append("parametrisation", row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
