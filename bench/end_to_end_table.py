"""The table of ``docs/measurements.md`` from the rows of ``end_to_end.py``.

    python bench/end_to_end_table.py --epochs 5

Of several seeds the mean is given, and in brackets the least and the greatest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import record

NAMES = {"additive": "β learned (`additive`)", "none": "β = 0 (`none`)", "uniform": "uniform width"}
HEADINGS = ("network", "method", "seeds", "trials", "search, s", "loss", "top-1 before",
            "recalibrated", "after", "MACs kept, %")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--extra", default="", help="rows with these options of end_to_end.py")
    options = parser.parse_args()
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in record.rows("end_to_end"):
        if row["epochs"] == options.epochs and row["extra"] == options.extra:
            groups.setdefault((row["network"], row["method"]), []).append(row["summary"])
    print(line(HEADINGS))
    print(line(["---"] * len(HEADINGS)))
    for (network, method), summaries in groups.items():
        learned = method == "additive"
        print(line([
            network, NAMES[method], str(len(summaries)),
            str(summaries[0]["trials"]) if learned else "1",
            spread([s["search_seconds"] for s in summaries], 0) if learned else "–",
            spread([s["loss_search_best"] for s in summaries], 3),
            spread([s["top1_before"] for s in summaries], 2),
            spread([s["top1_pruned"] for s in summaries], 2),
            spread([s["top1_after"] for s in summaries], 2),
            spread([100 * s["macs_after"] / s["macs_before"] for s in summaries], 2),
        ]))  # fmt: skip


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and where they differ the least and the greatest."""
    low, mean, high = (
        f"{value:.{digits}f}" for value in (min(values), sum(values) / len(values), max(values))
    )
    return mean if low == high else f"{mean} ({low}–{high})"


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
