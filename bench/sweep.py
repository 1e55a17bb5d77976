"""What a sweep costs and finds beside a search of its own for each budget.

    python bench/sweep.py --cifar DIR --weights FILE --seeds 0 1 2
    python bench/sweep.py table

``--cifar`` holds the image tree with ``train/`` and ``test/``. A row is a run: of the sweep, or of
its budget alone with all trials. The tightest and the middle run of a sweep are those of their
budgets alone, bit for bit, so that only the others are searched alone too; ``--all`` searches all.
Accuracies are of the test split: recalibrated, and after ``--epochs`` of fine-tuning. What was
stopped goes on in ``--work``.

In the table seconds are those of all searches of a seed, and their ratio is of one seed; means over
the seeds that both have, in brackets the least and the greatest.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plans
import runner
from lcprune.runs import PruneOptions, SweepPoint, SweepSummary, prune_job, read_summary, sweep_job

KEYS = ("network", "strategy", "budgets", "bound", "how", "seed", "trials", "images", "epochs")

Pairs = dict[tuple[str, int], dict[str, runner.Row]]
"""By bound and seed: the rows of the sweep and of the search alone."""


def main() -> None:
    bench = runner.Bench("sweep", __doc__, KEYS, table)
    bench.argument("--cifar", type=Path, required=True)
    bench.argument("--weights", type=Path, help="of the network; also a folder of published ones")
    bench.argument("--network", default="cifar_resnet20")
    bench.argument("--budgets", nargs="+", default=["70%", "50%", "30%", "20%"], help="of the MACs")
    bench.argument("--strategies", nargs="+", default=["evolution", "auto"])
    bench.argument("--seeds", nargs="+", type=int, default=[0])
    bench.argument("--trials", type=int, default=400)
    bench.argument("--recalibrate-images", type=int, default=250)
    bench.argument("--fitness-images", type=int, default=500)
    bench.argument("--hold-out", type=int, default=0)
    bench.argument("--epochs", type=int, default=0)
    bench.argument("--all", action="store_true", help="also what is the same bit for bit")
    bench.argument("--work", type=Path, default=Path("runs/sweep"))
    options = bench.parse()
    for seed in options.seeds:
        for strategy in options.strategies:
            study = Study(options, strategy, seed)
            for how in ("sweep", "alone"):
                for bound in options.budgets:
                    if how == "sweep" or options.all or study.starts(bound):
                        bench.row(
                            study.key(bound, how), lambda b=bound, h=how, s=study: s.measure(b, h)
                        )


class Study:
    """One seed and strategy."""

    def __init__(self, options: argparse.Namespace, strategy: str, seed: int) -> None:
        weights = options.weights
        if weights.is_dir():
            weights = weights / plans.published(options.network)
        self._arguments = options
        self._options: dict[str, Any] = {
            "model": options.network,
            "data": f"cifar10:{options.cifar}",
            "weights": str(weights),
            "hold_out": options.hold_out,
            "strategy": strategy,
            "trials": options.trials,
            "recalibrate_images": options.recalibrate_images,
            "fitness_images": options.fitness_images,
            "finetune_epochs": options.epochs,
            "seed": seed,
        }
        name = f"{options.network}-{strategy}-{seed}-{options.trials}-{options.epochs}"
        self._work: Path = options.work / name

    def key(self, bound: str, how: str) -> runner.Row:
        own, options = self._options, self._arguments
        return {
            "network": options.network,
            "strategy": own["strategy"],
            "budgets": options.budgets,
            "bound": bound,
            "how": how,
            "seed": own["seed"],
            "trials": options.trials,
            "images": [options.recalibrate_images, options.fitness_images, options.hold_out],
            "epochs": options.epochs,
        }

    def starts(self, bound: str) -> bool:
        """Whether the sweep's run starts from others."""
        return bool(self._point(bound).start)

    def measure(self, bound: str, how: str) -> runner.Row:
        if how == "sweep":
            point = self._point(bound)
            summary = read_summary(self._work / "sweep" / point.directory)
        else:
            config = PruneOptions.of({**self._options, "budget": [f"macs={bound}"]})
            summary = prune_job(config, self._work / f"alone-{bound.rstrip('%')}", resume=True)
        return {
            "searched": summary.trials,
            "seconds": summary.search_seconds,
            "loss": summary.loss_search_best,
            "pruned": summary.scores["pruned"].top1,
            "after": summary.scores["after"].top1,
            "knee": how == "sweep" and self._sweep().knee == point.directory,
        }

    def _point(self, bound: str) -> SweepPoint:
        return next(point for point in self._sweep().points if point.bound == bound)

    def _sweep(self) -> SweepSummary:
        """The sweep; once it is finished, its result is read."""
        sweep = f"macs={','.join(self._arguments.budgets)}"
        config = PruneOptions.of({**self._options, "sweep": [sweep]})
        return sweep_job(config, self._work / "sweep", resume=True)


def table(_: argparse.Namespace) -> None:
    groups: dict[tuple[Any, ...], Pairs] = defaultdict(lambda: defaultdict(dict))
    for row in runner.rows("sweep"):
        group = (row["network"], row["strategy"], row["trials"], row["epochs"])
        groups[group][row["bound"], row["seed"]][row["how"]] = row
    for (network, strategy, trials, epochs), found in groups.items():
        print(f"{network}, {strategy}, {trials} trials, {epochs} epochs of fine-tuning\n")
        lines = []
        for bound in dict.fromkeys(bound for bound, _ in found):
            pairs = [pair(both) for (of, _), both in found.items() if of == bound and whole(both)]
            if not pairs:
                continue
            cells: list[str] = [bound, str(pairs[0][0]["searched"]), str(len(pairs))]
            for key, digits in (("loss", 3), ("pruned", 1), ("after", 2)):
                for which in (0, 1):
                    cells.append(spread([both[which][key] for both in pairs], digits))
            lines.append(cells)
        print(runner.markdown(HEADINGS, lines), end="\n\n")
        print(seconds(found), end="\n\n")


HEADINGS = ("MACs", "trials in the sweep", "seeds", "loss, sweep", "alone", "recalibrated, sweep",
            "alone", "top-1 after, sweep", "alone")  # fmt: skip


def whole(both: dict[str, runner.Row]) -> bool:
    """Whether a run of a sweep has what it is compared with, which may be itself."""
    return "alone" in both or ("sweep" in both and not started(both["sweep"]))


def started(row: runner.Row) -> bool:
    """Whether the run of a sweep started from others."""
    return bool(row["searched"] < row["trials"])


def pair(both: dict[str, runner.Row]) -> tuple[runner.Row, runner.Row]:
    """The run of the sweep, and that of its budget alone."""
    return both["sweep"], both.get("alone", both["sweep"])


def seconds(found: Pairs) -> str:
    """How long all searches of a seed took, of the seeds that have them all."""
    swept: list[float] = []
    alone: list[float] = []
    for seed in dict.fromkeys(seed for _, seed in found):
        rows = [both for (_, of), both in found.items() if of == seed]
        if all(map(whole, rows)):
            pairs = list(map(pair, rows))
            swept.append(sum(one["seconds"] for one, _ in pairs))
            alone.append(sum(other["seconds"] for _, other in pairs))
    if not swept:
        return "No seed has all searches yet."
    ratios = [one / other for one, other in zip(swept, alone, strict=True)]
    return (
        f"Seconds of all searches: sweep {spread(swept, 0)}, alone {spread(alone, 0)}, "
        f"ratio {spread(ratios, 2)}."
    )


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and where they differ the least and the greatest."""
    low, mean, high = (
        f"{value:.{digits}f}" for value in (min(values), sum(values) / len(values), max(values))
    )
    return mean if low == high else f"{mean} ({low}–{high})"


if __name__ == "__main__":
    main()
