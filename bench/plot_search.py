"""The picture of a search: the best loss so far by trial, beside plans that learn nothing.

python bench/plot_search.py LEARNED_DIR --controls NONE_DIR UNIFORM_DIR --out docs/search.svg
"""

from __future__ import annotations

import argparse
from itertools import accumulate
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from lcprune.runs import read_run
from lcprune.searching import read_journal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("learned", type=Path)
    parser.add_argument("--controls", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    trials = read_journal(options.learned / "search.sqlite").trials
    configuration = read_run(options.learned).configuration
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    losses = [trial.loss for trial in trials]
    axes.plot(losses, ".", markersize=3, color="0.75", label="a trial")
    axes.plot(list(accumulate(losses, min)), color="C0", label="best so far, β learned")
    for style, directory in zip(("--", ":"), options.controls, strict=False):
        loss = read_journal(directory / "search.sqlite").trials[0].loss
        name = read_run(directory).configuration["compensation"]
        label = {"none": "one global ranking, β = 0", "uniform": "the same width everywhere"}[name]
        axes.axhline(loss, linestyle=style, color="C3", label=f"{label}: {loss:.2f}")
    axes.set_yscale("log")
    axes.set_xlabel("trial")
    axes.set_ylabel("loss before any training")
    axes.set_title(f"{configuration['model']}, {', '.join(configuration['budget'])}", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(options.out)


if __name__ == "__main__":
    main()
