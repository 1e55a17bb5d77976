"""The table of ``recovery.py``'s rows.

    python bench/recovery_table.py

Accuracies in percent after the last epoch: means over the seeds that there are.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import mean
from typing import Any

import record

GROUP = ("network", "base", "epochs", "budget")


def main() -> None:
    groups: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for row in record.rows("recovery"):
        variants = groups[tuple(row[key] for key in GROUP)]
        variants.setdefault(row["variant"], []).append(row)
    for (network, base, epochs, budget), variants in groups.items():
        print(f"{network} (base {base}), {budget} of the MACs, {epochs} epochs\n")
        print("| variant | seeds | before | held out | test |")
        print("|---|---|---|---|---|")
        for variant, rows in variants.items():
            keys = ("top1_held_out_before", "top1_held_out", "top1")
            figures = [f"{mean(row[key] for row in rows):.2f}" for key in keys]
            print(f"| {variant} | {len(rows)} | {' | '.join(figures)} |")
        print()


if __name__ == "__main__":
    main()
