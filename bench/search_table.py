"""The table of ``search.py``'s rows, and with ``--plot FILE.svg`` the picture of one budget.

    python bench/search_table.py
    python bench/search_table.py --methods auto evolution
    python bench/search_table.py --plot docs/strategies.svg --budget 0.5

Losses are medians over the seeds that all methods have. ``in its seconds`` is a method's loss after
all of evolution's seconds, and ``its end`` the share of evolution's seconds after which a method is
as low as evolution ends, both on the same seed and as medians; ``–`` where it never is.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import record

Row = dict[str, Any]
MARKS = (50, 100, 200, 400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--base", default="clean-10-epochs")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--methods", nargs="+", help="only these")
    options = parser.parse_args()
    groups: dict[tuple[Any, ...], dict[str, dict[int, Row]]] = defaultdict(dict)
    for row in record.rows("search"):
        key = (row["network"], row["base"], row["budget"], row["trials"], tuple(row["images"]))
        if options.methods and row["method"] not in options.methods:
            continue
        groups[key].setdefault(row["method"], {})[row["seed"]] = row
    for key, methods in groups.items():
        table(key, methods)
        if options.plot and key[:3] == (options.network, options.base, options.budget):
            plot(key, methods, options.plot)


def table(key: tuple[Any, ...], methods: dict[str, dict[int, Row]]) -> None:
    network, base, budget, trials, images = key
    seeds = sorted(set.intersection(*(set(rows) for rows in methods.values())))
    print(
        f"{network} ({base}), {budget:.0%} of the MACs, {trials} trials, {images[0]} + {images[1]}"
    )
    print(f"images, {len(seeds)} seeds that all methods have\n")
    marks = [mark for mark in MARKS if mark <= trials]
    heads = [
        *(f"after {mark}" for mark in marks),
        "on other images",
        "seconds",
        "in its seconds",
        "its end",
    ]
    print(f"| method | {' | '.join(heads)} |")
    print(f"|---{'|---' * len(heads)}|")
    for method, rows in sorted(methods.items(), key=lambda item: last(item[1], seeds)):
        cells = [f"{median(rows[s]['best'][mark - 1] for s in seeds):.3f}" for mark in marks]
        cells.append(f"{median(rows[s]['held_loss'] for s in seeds):.3f}")
        cells.append(f"{median(rows[s]['seconds'][-1] for s in seeds):.0f}")
        equal = median([within(rows[s], methods["evolution"][s]) for s in seeds] or [math.nan])
        cells.append(f"{equal:.3f}")
        shares = [reached(rows[s], methods["evolution"][s]) for s in seeds]
        share = median(shares) if shares else math.inf
        cells.append(f"{share:.2f}" if math.isfinite(share) else "–")
        print(f"| `{method}` | {' | '.join(cells)} |")
    print()


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
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for place, (method, rows) in enumerate(methods.items()):
        for number, row in enumerate(rows.values()):
            label = method if number == 0 else None
            axes.plot(row["seconds"], row["best"], color=f"C{place}", label=label, linewidth=1)
    axes.set_xlabel("seconds")
    axes.set_ylabel("best loss so far, before any training")
    axes.set_yscale("log")
    axes.set_title(f"{key[0]} ({key[1]}), {key[2]:.0%} of the MACs", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(out)


if __name__ == "__main__":
    main()
