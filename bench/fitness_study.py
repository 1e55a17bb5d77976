"""Which fitness foretells the accuracy after fine-tuning?

    python bench/fitness_study.py plans  --cifar DIR --work DIR
    python bench/fitness_study.py truth  --cifar DIR [--part 0/2]
    python bench/fitness_study.py values --cifar DIR
    python bench/fitness_study.py table

``plans`` runs short searches on training images and keeps, for each budget, plans of evolution's
best quartile and as many of the rest, the end of each other search, a ranking without compensation
and a uniform width, as rows of ``results/plans.jsonl``; those of the study on the base of ten
epochs are there. ``truth`` fine-tunes every plan with two seeds: the noise that no fitness can
foretell. ``values`` measures every candidate fitness on every plan.

The table has Kendall's tau between a fitness and the loss of the trained networks on the judge's
images (the mean of the seeds), over all plans of a budget and over the better half of them, and the
regret: by how many points the plan that the fitness would choose is worse than the best one. The
first line is what one seed foretells of the other: no fitness can be expected to do better. Where
not all plans have a second seed there is no such line, and the first seed is the truth.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from scipy.stats import kendalltau

import fitness_candidates as candidates
import lcprune as lp
import plans
import runner
from fitness_candidates import Study
from lcprune.runs import PruneOptions, prune_job
from lcprune.searching import read_journal
from runner import Row, markdown

KEYS = ("kind", "budget", "plan", "name", "seed")
BUDGETS = (0.5, 0.3)
SEARCH_SEEDS = (0, 1)


def main() -> None:
    bench = runner.Bench("fitness_study", __doc__, KEYS, table)
    bench.argument("what", choices=("plans", "truth", "values"))
    bench.argument("--weights", type=Path, default=plans.BASES["53f40250"])
    bench.argument("--cifar", type=Path, required=True)
    bench.argument("--work", type=Path, help="where the runs of plans are kept")
    bench.argument("--network", default="cifar_resnet20")
    bench.argument("--trials", type=int, default=200)
    bench.argument("--strategies", nargs="+", default=["evolution", "auto", "random"])
    bench.argument("--plans", type=int, nargs=2, default=(24, 12), help="of 50 and of 30 %%")
    bench.argument("--seeds", type=int, nargs="+", default=(0, 1), help="of the fine-tuning")
    bench.argument("--steps", type=int, default=700, help="that a plan is fine-tuned for")
    bench.argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    bench.argument("--part", default="0/1", help="of the plans, for several processes: 0/2")
    bench.argument("--only", type=float, choices=BUDGETS, help="a budget")
    bench.argument("--names", nargs="+", help="only these candidates")
    options = bench.parse()
    if options.what == "plans" and options.work is None:
        bench.error("plans needs --work")
    study = Study(options.network, options.weights, options.cifar, options.dtype)
    {"plans": choose_plans, "truth": find_truth, "values": measure_values}[options.what](
        bench, study, options
    )


def choose_plans(_: runner.Bench, study: Study, options: argparse.Namespace) -> None:
    """Search, and keep the plans that the study is about."""
    known = {row["digest"] for row in plans.rows("fitness", study.base.digest)}
    for budget, count in zip(BUDGETS, options.plans, strict=True):
        found = [(study.planner.control(budget, c), {"origin": c}) for c in ("none", "uniform")]
        for strategy, seed in itertools.product(options.strategies, SEARCH_SEEDS):
            most = (count - 2) // len(SEARCH_SEEDS) if strategy == "evolution" else 1
            come = {"strategy": strategy, "seed": seed, "trials": options.trials}
            for origin, latent in drawn(searched(options, budget, strategy, seed), most):
                plan = study.planner.ranker(budget).plan(np.array(latent, dtype=np.float64))
                found.append((plan, come | {"origin": origin}))
        for plan, come in found:
            if plan.digest not in known and not options.no_row:
                row = plans.row_of(study.base, budget, plan, study="fitness", **come)
                runner.append("plans", row)
            known.add(plan.digest)


def searched(options: argparse.Namespace, budget: float, strategy: str, seed: int) -> Path:
    """The directory of a finished run without fine-tuning."""
    out: Path = options.work / f"{strategy}-{budget:.0%}-{seed}".replace("%", "")
    config = PruneOptions(
        model=options.network,
        data=f"cifar10:{options.cifar}",
        weights=str(options.weights),
        budget=(f"macs={budget:.0%}",),
        round_to=1,
        trials=options.trials,
        recalibrate_images=250,
        fitness_images=500,
        finetune_epochs=0,
        strategy=strategy,
        seed=seed,
    )
    prune_job(config, out, resume=out.exists())
    return out


def drawn(out: Path, count: int) -> list[tuple[str, Any]]:
    """Latents of a search: its end, others of its best quartile, and half of the rest."""
    found = read_journal(out / "search.sqlite").trials
    trials = sorted((t for t in found if t.final), key=lambda trial: trial.loss)
    distinct = list({trial.digest: trial for trial in reversed(trials)}.values())
    distinct.sort(key=lambda trial: trial.loss)
    quarter = max(1, len(distinct) // 4)
    best = spaced(distinct[:quarter], (count + 1) // 2)
    rest = spaced(distinct[quarter:], count // 2)
    origins = ["end"] + ["best quartile"] * (len(best) - 1) + ["rest"] * len(rest)
    return [(o, t.note["latent"]) for o, t in zip(origins, [*best, *rest], strict=True)]


def spaced(items: list[Any], count: int) -> list[Any]:
    if count >= len(items):
        return items
    return [items[i * (len(items) - 1) // max(1, count - 1)] for i in range(count)]


def kept(study: Study, options: argparse.Namespace) -> list[tuple[Row, lp.Plan]]:
    """What rows of the study's plans begin with, and the plans."""
    found = []
    for row in plans.rows("fitness", study.base.digest):
        if options.only in (None, row["budget"]):
            searched = row["strategy"] is not None
            where = f"{row['strategy']}, seed {row['seed']}: " if searched else ""
            key = {"budget": f"{row['budget']:.0%}", "plan": row["digest"]}
            found.append((key | {"origin": where + row["origin"]}, study.planner.plan(row)))
    return sorted(found, key=lambda pair: (pair[0]["budget"], pair[0]["plan"]))


def find_truth(bench: runner.Bench, study: Study, options: argparse.Namespace) -> None:
    """Fine-tune every plan with each seed; the judge's images say how good it is."""
    part, parts = map(int, options.part.split("/"))
    for seed in options.seeds:
        for key, plan in kept(study, options)[part::parts]:
            full = {"kind": "truth", **key, "name": "", "seed": seed}
            bench.row(full, partial(truth, study, plan, options.steps, seed))


def truth(study: Study, plan: lp.Plan, steps: int, seed: int) -> Row:
    start = time.perf_counter()
    model = study.train(plan, steps, seed)
    top1, loss = candidates.top1_and_loss(model, study.judge, study.data)
    seconds = round(time.perf_counter() - start, 1)
    return {"top1": top1, "loss": loss, "steps": steps, "seconds": seconds}


def measure_values(bench: runner.Bench, study: Study, options: argparse.Namespace) -> None:
    """Every candidate fitness on every plan."""
    offered = candidates.offered(study)
    for name in options.names or offered:
        for key, plan in kept(study, options):
            full = {"kind": "value", **key, "name": name, "seed": 0}
            bench.row(full, partial(value, study, plan, offered[name]))


def value(study: Study, plan: lp.Plan, fitness: candidates.Candidate) -> Row:
    start = time.perf_counter()
    found = fitness(study, plan)
    return {"value": found, "seconds": round(time.perf_counter() - start, 3)}


def table(_: argparse.Namespace) -> None:
    rows = list(runner.rows("fitness_study"))
    for budget in sorted({row["budget"] for row in rows}, reverse=True):
        foretold([row for row in rows if row["budget"] == budget], budget)


def foretold(rows: list[Row], budget: str) -> None:
    truths: dict[str, list[Row]] = defaultdict(list)
    values: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["kind"] == "truth":
            truths[row["plan"]].append(row)
        else:
            values[row["name"]][row["plan"]] = row
    twice = all(len(found) > 1 for found in truths.values())
    if not twice:
        truths = {plan: found[:1] for plan, found in truths.items()}
    plans = sorted(truths)
    loss = {plan: mean(row["loss"] for row in truths[plan]) for plan in plans}
    top1 = {plan: mean(row["top1"] for row in truths[plan]) for plan in plans}
    print(f"{budget} of the MACs, {len(plans)} plans, {2 if twice else 1} seeds each\n")
    origins = sorted(((top1[p], loss[p], truths[p][0]["origin"]) for p in plans), reverse=True)
    lines = [[origin, f"{t:.2f}", f"{value:.3f}"] for t, value, origin in origins]
    print(markdown(["origin", "top-1 after training", "loss"], lines), end="\n\n")
    lines = []
    for name, found in values.items():
        if all(plan in found for plan in plans):
            fitness = {plan: found[plan]["value"] for plan in plans}
            seconds = f"{mean(found[plan]['seconds'] for plan in plans):.2f}"
            lines.append([name, seconds, *figures(fitness, loss, top1)])
    lines.sort(key=lambda cells: -float(cells[2]))
    if twice:
        one, other = (
            {plan: next(r["loss"] for r in truths[plan] if r["seed"] == seed) for plan in plans}
            for seed in (0, 1)
        )
        lines.insert(0, ["the loss with another seed", "", *figures(one, other, top1)])
    heads = ["fitness", "seconds", "tau", "tau, better half", "regret, points"]
    print(markdown(heads, lines), end="\n\n")


def figures(
    fitness: dict[str, float], loss: dict[str, float], top1: dict[str, float]
) -> tuple[str, str, str]:
    """Tau over all plans, over the better half, and the regret."""
    plans = sorted(loss, key=lambda plan: loss[plan])
    half = plans[: max(3, len(plans) // 2)]
    whole, better = (
        kendalltau([fitness[p] for p in part], [loss[p] for p in part]).statistic
        for part in (plans, half)
    )
    regret = max(top1.values()) - top1[min(plans, key=lambda plan: fitness[plan])]
    return f"{whole:.2f}", f"{better:.2f}", f"{regret:.2f}"


if __name__ == "__main__":
    main()
