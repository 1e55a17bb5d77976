"""The table of ``trained.py``'s rows.

    python bench/trained_table.py

Accuracies on the test split in percent, after the last epoch, by seed; ``over evolution`` is the
mean of the differences to evolution with the same seed, and their range.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import mean
from typing import Any

import record

GROUP = ("network", "base", "budget", "epochs")


def main() -> None:
    groups: dict[tuple[Any, ...], dict[str, dict[int, float]]] = defaultdict(dict)
    for row in record.rows("trained"):
        methods = groups[tuple(row[key] for key in GROUP)]
        methods.setdefault(row["method"], {})[row["seed"]] = row["top1"]
    for (network, base, budget, epochs), methods in groups.items():
        print(f"{network} (base {base}), {budget:.0%} of the MACs, {epochs} epochs\n")
        print("| method | top-1 by seed | mean | over evolution |")
        print("| --- | --- | --- | --- |")
        for method, found in sorted(methods.items(), key=lambda item: -mean(item[1].values())):
            each = ", ".join(f"{top1:.2f}" for _, top1 in sorted(found.items()))
            against = over(found, methods.get("evolution", {}))
            print(f"| `{method}` | {each} | {mean(found.values()):.2f} | {against} |")
        print()


def over(found: dict[int, float], evolution: dict[int, float]) -> str:
    differences = [top1 - evolution[seed] for seed, top1 in found.items() if seed in evolution]
    if not differences or found is evolution:
        return ""
    return f"{mean(differences):+.2f} ({min(differences):+.2f} to {max(differences):+.2f})"


if __name__ == "__main__":
    main()
