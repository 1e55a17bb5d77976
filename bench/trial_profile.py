"""Where the time of a search's trials goes, from the journal of a run.

    python bench/trial_profile.py DIR [DIR ...]

Prints the mean milliseconds of every step over the trials that were evaluated (a plan that was
seen before is answered from the journal) and appends a row to ``results/trial_profile.jsonl``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

import record
from lcprune.searching import read_journal

PLANNING = ("ask", "plan", "slim")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="+")
    for directory in parser.parse_args().directory:
        trials = read_journal(directory / "search.sqlite").trials
        evaluated = [trial for trial in trials if trial.same_as is None]
        steps = {
            step: 1000 * mean(trial.timing.get(step, 0.0) for trial in evaluated)
            for step in evaluated[0].timing
        }
        whole = sum(steps.values())
        share = sum(steps.get(step, 0.0) for step in PLANNING) / whole
        seconds = sum(trial.seconds for trial in trials)
        print(f"{directory}: {len(trials)} trials in {seconds:.0f} s, {len(evaluated)} evaluated")
        for step, milliseconds in steps.items():
            print(f"  {step:12} {milliseconds:8.1f} ms  {milliseconds / whole:6.1%}")
        print(f"  planning and surgery: {share:.1%} of a trial")
        run = json.loads((directory / "run.json").read_text())
        record.append(
            "trial_profile",
            {
                "model": run["configuration"]["model"],
                "precision": run["state"].get("precision"),
                "trials": len(trials),
                "evaluated": len(evaluated),
                "search_seconds": round(seconds, 1),
                "milliseconds": {step: round(value, 2) for step, value in steps.items()},
                "planning_share": round(share, 4),
            },
        )


if __name__ == "__main__":
    main()
