"""What the journal of a finished run tells: where its time went, and how its search went.

    python bench/journal.py RUN_DIR [RUN_DIR ...]
    python bench/journal.py table
    python bench/journal.py table --plot docs/search.svg --run DIR --controls NONE_DIR UNIFORM_DIR

A row of ``results/trial_profile.jsonl`` has the mean milliseconds of every step over the trials
that were evaluated (a plan that was seen before is answered from the journal). The picture has the
best loss so far by trial, beside plans that learn nothing.
"""

from __future__ import annotations

import argparse
import json
from itertools import accumulate
from pathlib import Path
from statistics import mean
from typing import Any

import runner
from lcprune.searching import read_journal

PLANNING = ("ask", "plan", "slim")


def main() -> None:
    bench = runner.Bench("trial_profile", __doc__, table=table)
    bench.tables.add_argument("--plot", type=Path, help="a picture of --run, FILE.svg")
    bench.tables.add_argument("--run", type=Path)
    bench.tables.add_argument("--controls", type=Path, nargs="*", default=[])
    bench.argument("directories", type=Path, nargs="+")
    for directory in bench.parse().directories:
        bench.row({}, lambda directory=directory: profile(directory))


def profile(directory: Path) -> runner.Row:
    trials = read_journal(directory / "search.sqlite").trials
    evaluated = [trial for trial in trials if trial.same_as is None]
    steps = {
        step: 1000 * mean(trial.timing.get(step, 0.0) for trial in evaluated)
        for step in evaluated[0].timing
    }
    run = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    return {
        "model": run["configuration"]["model"],
        "precision": run["state"].get("precision"),
        "trials": len(trials),
        "evaluated": len(evaluated),
        "search_seconds": round(sum(trial.seconds for trial in trials), 1),
        "milliseconds": {step: round(value, 2) for step, value in steps.items()},
        "planning_share": round(
            sum(steps.get(step, 0.0) for step in PLANNING) / sum(steps.values()), 4
        ),
    }


def table(options: argparse.Namespace) -> None:
    if options.plot:
        plot(options.run, options.controls, options.plot)
        return
    steps = ("plan", "slim", "recalibrate", "fitness")
    lines = []
    for row in runner.rows("trial_profile"):
        figures = [f"{row['milliseconds'].get(step, 0):.1f}" for step in steps]
        share = f"{row['planning_share']:.1%}"
        lines.append([row["model"], row["trials"], row["search_seconds"], *figures, share])
    print(runner.markdown(["network", "trials", "seconds", *steps, "planning, surgery"], lines))


def plot(learned: Path, controls: list[Path], out: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    losses = [trial.loss for trial in read_journal(learned / "search.sqlite").trials]
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    axes.plot(losses, ".", markersize=3, color="0.75", label="a trial")
    axes.plot(list(accumulate(losses, min)), color="C0", label="best so far, β learned")
    names = {"none": "one global ranking, β = 0", "uniform": "the same width everywhere"}
    for style, directory in zip(("--", ":"), controls, strict=False):
        loss = read_journal(directory / "search.sqlite").trials[0].loss
        label = names[configuration(directory)["compensation"]]
        axes.axhline(loss, linestyle=style, color="C3", label=f"{label}: {loss:.2f}")
    run = configuration(learned)
    axes.set_yscale("log")
    axes.set_xlabel("trial")
    axes.set_ylabel("loss before any training")
    axes.set_title(f"{run['model']}, {', '.join(run['budget'])}", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(out)


def configuration(directory: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    return dict(run["configuration"])


if __name__ == "__main__":
    main()
