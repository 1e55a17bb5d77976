"""Where the time of a finished run's search went, from its journal.

    python bench/journal.py RUN_DIR [RUN_DIR ...]
    python bench/journal.py table

A row of ``results/trial_profile.jsonl`` has the mean milliseconds of every step over the trials
that were evaluated (a plan that was seen before is answered from the journal).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

import runner
from lcprune.searching import read_journal

PLANNING = ("ask", "plan", "slim")


def main() -> None:
    bench = runner.Bench("trial_profile", __doc__, table=table)
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


def table(_: argparse.Namespace) -> None:
    steps = ("plan", "slim", "recalibrate", "fitness")
    lines = []
    for row in runner.rows("trial_profile"):
        figures = [f"{row['milliseconds'].get(step, 0):.1f}" for step in steps]
        share = f"{row['planning_share']:.1%}"
        lines.append([row["model"], row["trials"], row["search_seconds"], *figures, share])
    print(runner.markdown(["network", "trials", "seconds", *steps, "planning, surgery"], lines))


if __name__ == "__main__":
    main()
