"""How low a search gets in how many seconds, by strategy.

    python bench/search.py --network digits_resnet --data digits --budgets 0.5 0.3 \\
        --methods auto widths cmaes evolution affine random --seeds 0 1 2 3 4
    python bench/search.py --network cifar_resnet20 --data cifar10:DIR --weights FILE --budgets 0.5
    python bench/search.py table --methods auto evolution
    python bench/search.py table --plot docs/strategies.svg --budget 0.5

Without weights the network is trained first, for 25 epochs with seed 0.

A method is a strategy; ``affine``, LeGR's compensation searched by evolution; ``…-rank``, with β in
units of ranks within a family; ``widths``, auto without its probes; or ``cmaes`` over β. All
methods of a seed see the same images: ``--recalibrate-images`` and ``--fitness-images`` of those
that the base was trained on (with ``--hold-out 10`` the fitness sees others). A row has for every
trial the seconds so far (planning and surgery included) and the best loss so far, and
``held_loss``, the best plan's loss on as many other images. With given weights the best plan is a
row of ``results/plans.jsonl``, for ``trained.py``. Seeds are the outer loop, methods the inner one,
so that what the machine does otherwise falls on all methods alike.

In the table losses are medians over the seeds that all methods have. ``in its seconds`` is a
method's loss after all of evolution's seconds, and ``its end`` the share of evolution's seconds
after which a method is as low as evolution ends, both on the same seed; ``–`` where it never is.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import plans
import runner
from lcprune.cost import Budget
from lcprune.criteria import saliency
from lcprune.data import ImageSet, hold_out, load_data, training_batches
from lcprune.fitness import CrossEntropy, choose_precision, recalibrate
from lcprune.models import build, load_weights
from lcprune.ranking import Ranker
from lcprune.searching import STRATEGIES, Auto, Candidate, SearchResult, Strategy, search
from lcprune.slimming import slim
from lcprune.tracing import trace
from lcprune.training import TrainingConfig, finetune
from runner import Row, markdown

KEYS = ("network", "base", "budget", "method", "seed", "trials", "images")
MARKS = (50, 100, 200, 400)


class CmaEs:
    """CMA-ES over β, which did not earn a place in the package.

    Hansen, "The CMA evolution strategy: a tutorial", 2016, by the library ``cmaes``: a population
    of 4 + 3 log(families) around a mean that begins at β = 0, with a step of one width of the first
    draws. It learns from a generation when it knows the losses of all of it.
    """

    def __init__(self, ranker: Ranker, trials: int, seed: int = 0) -> None:
        from cmaes import CMA

        self._ranker = ranker
        compensation = ranker.compensation
        draws = [compensation.draw(np.random.default_rng(i))[:, 0] for i in range(256)]
        self._widths = np.std(draws, axis=0)
        self._optimizer = CMA(mean=np.zeros(len(self._widths)), sigma=1.0, seed=seed)
        self._losses: list[tuple[Any, float]] = []
        self._next = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"name": "cmaes", "population": self._optimizer.population_size}

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        compensation = self._ranker.compensation
        latent, origin = compensation.identity(), "identity"
        if number > 0:
            latent = compensation.offset(self._optimizer.ask() * self._widths)
            origin = "generation"
        note = {"origin": origin, "latent": latent.tolist()}
        return Candidate(number, self._ranker.keep(latent), note=note)

    def tell(self, candidate: Candidate, loss: float) -> None:
        if candidate.number == 0:
            return
        beta = np.array(candidate.note["latent"])[:, -1]
        self._losses.append((beta / self._widths, loss))
        if len(self._losses) == self._optimizer.population_size:
            self._optimizer.tell(self._losses)
            self._losses = []


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
    bench = runner.Bench("search", __doc__, KEYS, table)
    bench.tables.add_argument("--plot", type=Path, help="a picture of one budget, FILE.svg")
    bench.tables.add_argument("--network", default="cifar_resnet20", help="of the picture")
    bench.tables.add_argument("--base", default="clean-10-epochs", help="of the picture")
    bench.tables.add_argument("--budget", type=float, default=0.5, help="of the picture")
    bench.tables.add_argument("--methods", nargs="+", help="only these")
    bench.argument("--data", required=True, help="digits or cifar10:DIR")
    bench.argument("--weights", type=Path)
    bench.argument("--base", default="trained", help="what to call the weights in the rows")
    bench.argument("--network", default="cifar_resnet20")
    bench.argument("--budgets", nargs="+", type=float, default=[0.5])
    bench.argument("--methods", nargs="+", default=["auto", "evolution"])
    bench.argument("--seeds", nargs="+", type=int, default=[0])
    bench.argument("--trials", type=int, default=400)
    bench.argument("--recalibrate-images", type=int, default=500)
    bench.argument("--fitness-images", type=int, default=1000)
    bench.argument("--hold-out", type=int, default=0)
    options = bench.parse()
    study = Study(options)
    for seed, budget, method in itertools.product(options.seeds, options.budgets, options.methods):
        key = {
            "network": options.network,
            "base": options.base,
            "budget": budget,
            "method": method,
            "seed": seed,
            "trials": options.trials,
            "images": [options.recalibrate_images, options.fitness_images],
        }
        bench.row(key, partial(study.measure, method, budget, seed))


class Study:
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

    def measure(self, method: str, budget: float, seed: int) -> Row:
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
        if options.weights and not options.no_row:
            base = plans.load_base(options.network, options.weights)
            origin = {"study": "search", "strategy": method.removesuffix("-rank")}
            if method == "affine":
                origin["strategy"] = "evolution"
            row = plans.row_of(
                base, budget, result.plan, **origin, seed=seed, trials=options.trials
            )
            runner.append("plans", row)
        small = precision.apply(slim(self.model, result.plan))
        recalibrate(small, batches)
        within = [t.loss if t.final else math.inf for t in result.history]
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
        """Normalised images and labels, from position ``start`` of a seed's order on."""
        order = torch.randperm(len(of), generator=torch.Generator().manual_seed(seed))
        part = of.subset(order[start : start + count]).in_memory()
        return self.data.normalise(part.pixels), part.labels


def share(result: SearchResult, steps: tuple[str, ...]) -> float:
    """The share of all trials' seconds that these steps take."""
    own = sum(trial.timing.get(step, 0.0) for trial in result.history for step in steps)
    return round(own / sum(trial.seconds for trial in result.history), 4)


def rounded(values: Any, digits: int) -> list[float]:
    return [round(value, digits) for value in values]


def table(options: argparse.Namespace) -> None:
    groups: dict[tuple[Any, ...], dict[str, dict[int, Row]]] = defaultdict(dict)
    for row in runner.rows("search"):
        key = (row["network"], row["base"], row["budget"], row["trials"], tuple(row["images"]))
        if not options.methods or row["method"] in options.methods:
            groups[key].setdefault(row["method"], {})[row["seed"]] = row
    for key, methods in groups.items():
        compare(key, methods)
        if options.plot and key[:3] == (options.network, options.base, options.budget):
            plot(key, methods, options.plot)


def compare(key: tuple[Any, ...], methods: dict[str, dict[int, Row]]) -> None:
    network, base, budget, trials, images = key
    seeds = sorted(set.intersection(*(set(rows) for rows in methods.values())))
    print(
        f"{network} ({base}), {budget:.0%} of the MACs, {trials} trials, {images[0]} + {images[1]}"
        f" images, {len(seeds)} seeds that all methods have\n"
    )
    marks = [mark for mark in MARKS if mark <= trials]
    lines = []
    for method, rows in sorted(methods.items(), key=lambda item: last(item[1], seeds)):
        cells = [f"`{method}`"]
        if seeds:
            cells += [f"{median(rows[s]['best'][mark - 1] for s in seeds):.3f}" for mark in marks]
            cells.append(f"{median(rows[s]['held_loss'] for s in seeds):.3f}")
            cells.append(f"{median(rows[s]['seconds'][-1] for s in seeds):.0f}")
        if seeds and "evolution" in methods:
            pairs = [(rows[s], methods["evolution"][s]) for s in seeds]
            cells.append(f"{median(within(*pair) for pair in pairs):.3f}")
            end = median(reached(*pair) for pair in pairs)
            cells.append(f"{end:.2f}" if math.isfinite(end) else "–")
        lines.append(cells)
    after = [f"after {mark}" for mark in marks]
    heads = ["method", *after, "on other images", "seconds", "in its seconds", "its end"]
    print(
        markdown(heads, [cells + ["–"] * (len(heads) - len(cells)) for cells in lines]), end="\n\n"
    )


def last(rows: dict[int, Row], seeds: list[int]) -> float:
    return median(rows[seed]["best"][-1] for seed in seeds) if seeds else math.inf


def within(row: Row, evolution: Row) -> float:
    """The best loss after all of evolution's seconds."""
    pairs = zip(row["seconds"], row["best"], strict=True)
    return min((loss for s, loss in pairs if s <= evolution["seconds"][-1]), default=math.inf)


def reached(row: Row, evolution: Row) -> float:
    """After what share of evolution's seconds ``row`` is as low as evolution's end."""
    target, whole = evolution["best"][-1], evolution["seconds"][-1]
    for seconds, best in zip(row["seconds"], row["best"], strict=True):
        if best <= target:
            return float(seconds / whole)
    return math.inf


def plot(key: tuple[Any, ...], methods: dict[str, dict[int, Row]], out: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, in a grey that is read on white and on black.
    colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    matplotlib.rcParams.update({"svg.fonttype": "none"} | dict.fromkeys(colours, "#7d8590"))
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for number, (method, rows) in enumerate(methods.items()):
        for first, row in enumerate(rows.values()):
            label = None if first else method
            axes.plot(row["seconds"], row["best"], color=f"C{number}", label=label, linewidth=1)
    axes.set_xlabel("seconds")
    axes.set_ylabel("best loss so far, before any training")
    axes.set_yscale("log")
    axes.set_title(f"{key[0]} ({key[1]}), {key[2]:.0%} of the MACs", fontsize=10)
    axes.legend(fontsize=8, framealpha=0)
    figure.savefig(out, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()
