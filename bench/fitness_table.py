"""How well each fitness foretells, from the rows of ``fitness_study.py``.

    python bench/fitness_table.py

Kendall's tau between a fitness and the loss of the trained networks on the judge's images (the
mean of the seeds), over all plans of a budget and over the better half of them, and the regret: by
how many points the plan that the fitness would choose is worse than the best one. The first line
is what one seed foretells of the other: no fitness can be expected to do better. Where not all
plans have a second seed there is no such line, and the first seed is the truth.

Before it, the plans by where they come from, and what they end with.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import mean
from typing import Any

from scipy.stats import kendalltau

import record

Row = dict[str, Any]


def main() -> None:
    rows = list(record.rows("fitness_study"))
    for budget in sorted({row["budget"] for row in rows}, reverse=True):
        table([row for row in rows if row["budget"] == budget], budget)


def table(rows: list[Row], budget: str) -> None:
    truth: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "truth":
            truth[row["plan"]].append(row)
    twice = all(len(found) > 1 for found in truth.values())
    if not twice:
        truth = {plan: found[:1] for plan, found in truth.items()}
    plans = sorted(truth)
    loss = {plan: mean(row["loss"] for row in truth[plan]) for plan in plans}
    top1 = {plan: mean(row["top1"] for row in truth[plan]) for plan in plans}
    print(f"{budget} of the MACs, {len(plans)} plans, {2 if twice else 1} seeds each\n")
    origins(truth)
    print("| fitness | seconds | tau | tau, better half | regret, points |")
    print("| --- | --- | --- | --- | --- |")
    if twice:
        one, other = (
            {plan: next(r["loss"] for r in truth[plan] if r["seed"] == seed) for plan in plans}
            for seed in (0, 1)
        )
        print(line("the loss with another seed", None, one, other, top1))
    values: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["kind"] == "value":
            values[row["name"]][row["plan"]] = row
    lines = []
    for name, found in values.items():
        if all(plan in found for plan in plans):
            fitness = {plan: found[plan]["value"] for plan in plans}
            seconds = mean(found[plan]["seconds"] for plan in plans)
            tau = kendalltau([fitness[p] for p in plans], [loss[p] for p in plans]).statistic
            lines.append((-tau, line(name, seconds, fitness, loss, top1)))
    for _, text in sorted(lines):
        print(text)
    print()


def origins(truth: dict[str, list[Row]]) -> None:
    print("| origin | top-1 after training | loss |")
    print("| --- | --- | --- |")
    found = [
        (mean(row["top1"] for row in rows), mean(row["loss"] for row in rows), rows[0]["origin"])
        for rows in truth.values()
    ]
    for top1, loss, origin in sorted(found, reverse=True):
        print(f"| {origin} | {top1:.2f} | {loss:.3f} |")
    print()


def line(
    name: str,
    seconds: float | None,
    fitness: dict[str, float],
    loss: dict[str, float],
    top1: dict[str, float],
) -> str:
    plans = sorted(loss, key=lambda plan: loss[plan])
    half = plans[: max(3, len(plans) // 2)]
    taus = [
        kendalltau([fitness[p] for p in part], [loss[p] for p in part]).statistic
        for part in (plans, half)
    ]
    regret = max(top1.values()) - top1[min(plans, key=lambda plan: fitness[plan])]
    cells = [name, "" if seconds is None else f"{seconds:.2f}"]
    return f"| {' | '.join([*cells, *(f'{tau:.2f}' for tau in taus), f'{regret:.2f}'])} |"


if __name__ == "__main__":
    main()
