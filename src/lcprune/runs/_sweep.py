"""A sweep: a run for each of several bounds on one resource, of which most start from others."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lcprune._checks import path as checked_path
from lcprune._files import replacing
from lcprune._text import shown
from lcprune.artifact import read_plan, versions
from lcprune.cost import RESOURCES, Budget, CostModel
from lcprune.errors import BudgetError, InputError
from lcprune.graph import FloatArray
from lcprune.ranking import Plan, Ranker
from lcprune.runs._choices import Choices
from lcprune.runs._options import PruneOptions
from lcprune.runs._problem import Problem
from lcprune.runs._prune import Measured, Stages, mask_of
from lcprune.runs._reporter import Reporter, Silent, warnings_to
from lcprune.runs._run import (
    BASE,
    LATENCY,
    MANIFEST,
    POINTS,
    START,
    Run,
    RunState,
    check_no_link,
    earlier_run,
    open_run,
)
from lcprune.runs._stopwatch import Stopwatch
from lcprune.runs._summary import (
    Cost,
    Summary,
    read_summary,
)
from lcprune.runs._sweep_summary import SweepPoint, SweepSummary, knee, on_front, read_sweep
from lcprune.searching import between

SHARE = 4
"""A search that starts from others has this part of the trials."""


@dataclass(frozen=True, eq=False)
class _Point:
    """A run of a sweep: its directory's ``name``, its ``bound`` as it was written, its ``limit``.

    ``start`` names the points whose best plans it starts from.
    """

    name: str
    bound: str
    limit: int
    options: PruneOptions
    start: tuple[str, ...] = ()


def sweep_job(
    config: PruneOptions,
    out: str | os.PathLike[str],
    *,
    command: str = "prune",
    resume: bool = False,
    force: bool = False,
    remeasure: bool = False,
    reporter: Reporter | None = None,
) -> SweepSummary:
    """Prune a model to each bound of ``config.sweep``, each in a directory within ``out``.

    Each is a run like any other. The tightest and the middle one search with all trials. The
    others start from the best plans of these, with a quarter of the trials: from widths between
    theirs, and from their β, cut at another bound (Chin, Ding, Zhang, Marculescu, "Towards
    efficient model compression via learned global ranking", CVPR 2020). The base network is
    trained, traced and evaluated once. ``budget`` is a further bound for all.

    The other arguments and errors are those of ``prune_job``; all bounds are checked before
    anything is written. What was interrupted goes on with ``resume``, and ends with the same plans.
    """
    out = checked_path("out", out)
    reporter = reporter or Silent()
    state, record = earlier_run(config, out, command, resume=resume, force=force)
    if record is not None and state is RunState.FINISHED:
        return read_sweep(out)
    resource, bounds = _read(config.sweep)
    each = [_options(config, resource, bound) for bound in bounds]
    for one in each:  # all, before anything is loaded
        Budget.parse(one.budget)
    choices = Choices(remeasure=remeasure)
    with warnings_to(reporter.warn):
        watch = Stopwatch.of(each[0], choices, None if record is None else out / LATENCY)
        problem, points = _checked(resource, bounds, each, watch, reporter)
    for note in problem.graph.notes:
        reporter.stage(note)
    begun = {POINTS: [point.name for point in points]}
    with open_run(out, config, command, record, reporter, force=force, state=begun) as run:
        base = Stages(run, config, choices).measured(problem)
        summaries: dict[str, Summary] = {}
        for point in sorted(points, key=lambda point: (bool(point.start), point.limit)):
            so = f"from {' and '.join(point.start)}" if point.start else "from the beginning"
            reporter.stage(
                f"run {len(summaries) + 1} of {len(points)}: {point.name}, "
                f"{point.options.trials} trials {so}"
            )
            summaries[point.name] = _run(run, point, base, points, choices)
        found = _outcomes(base.problem, out, points, summaries)
        summary = SweepSummary(
            model=config.model,
            data=config.data,
            seed=config.seed,
            resource=resource,
            budget=config.budget,
            strategy=config.strategy,
            points=on_front(found),
            knee=knee(found, resource),
            versions=versions(),
        )
        run.finish(summary.to_json())
    return summary


def _read(texts: Sequence[str]) -> tuple[str, list[str]]:
    """The resource and the bounds that a sweep asks for; ``InputError`` where it asks for none."""
    asked: dict[str, list[str]] = {}
    for text in texts:
        name, equals, bounds = (part.strip() for part in text.partition("="))
        if not (name and equals) or "=" in bounds:
            raise InputError(
                f"sweep {shown(text)}, expected bounds on one resource, such as macs=70%,50%,30%"
            )
        asked.setdefault(name, []).extend(bound.strip() for bound in bounds.split(","))
    if len(asked) > 1:
        raise InputError(f"a sweep over {' and '.join(asked)}, expected one resource")
    ((resource, found),) = asked.items()
    if len(found) < 2:
        only = f"{resource}={found[0]}"
        raise InputError(f"a sweep of one bound, expected several, or --budget {only}")
    return resource, found


def _options(config: PruneOptions, resource: str, bound: str) -> PruneOptions:
    """The options of one run, with all trials."""
    return replace(config, sweep=(), budget=(f"{resource}={bound}", *config.budget))


def _checked(
    resource: str,
    bounds: Sequence[str],
    each: Sequence[PruneOptions],
    watch: Stopwatch | None,
    reporter: Reporter,
) -> tuple[Problem, list[_Point]]:
    """What all runs share, and the runs, the tightest first; each can be met.

    ``BudgetError`` where one can't, ``InputError`` where two are the same.
    """
    problem, points = None, []
    for bound, options in zip(bounds, each, strict=True):
        try:
            if problem is None:
                own = Problem.of(options, watch, reporter)
            else:
                own = problem.of_budget(options)
        except BudgetError as error:
            raise BudgetError(f"sweep, {resource}={bound}: {error}") from error
        problem = problem or own
        name = f"{resource}-{bound.removesuffix('%')}".replace(" ", "")
        points.append(_Point(name, bound, own.limits[resource], options))
    assert problem is not None
    points.sort(key=lambda point: point.limit)
    for one, other in itertools.combinations(points, 2):
        if one.limit == other.limit or one.name == other.name:
            raise InputError(
                f"a sweep with {resource}={one.bound} and {resource}={other.bound}, which are the "
                "same, expected each bound once"
            )
    learns = problem.ranker(each[0], problem.budget).compensation.parameters
    return problem, _with_starts(points) if learns else points


def _with_starts(points: Sequence[_Point]) -> list[_Point]:
    """All but the tightest and the middle one start from these, the nearer one first."""
    whole = [points[0], *([points[len(points) // 2]] if len(points) > 2 else [])]
    started = []
    for point in points:
        if point not in whole:
            nearest = sorted(whole, key=lambda other: abs(other.limit - point.limit))
            trials = -(-point.options.trials // SHARE)
            options = replace(point.options, trials=trials)
            start = tuple(other.name for other in nearest)
            point = replace(point, options=options, start=start)
        started.append(point)
    return started


def _run(
    sweep: Run, point: _Point, base: Measured, points: Sequence[_Point], choices: Choices
) -> Summary:
    """One run, from where an earlier process left it."""
    out, options = sweep.directory / point.name, point.options
    check_no_link(out)
    state, record = earlier_run(options, out, "prune", resume=True, force=False)
    if record is not None and state is RunState.FINISHED:
        return read_summary(out)
    problem = base.problem.of_budget(options)
    begun = {}
    if record is None:
        own = (POINTS, MANIFEST)
        begun = {key: found for key, found in sweep.record.state.items() if key not in own}
        start = _start(problem, options, sweep.directory, point, points)
        begun |= {START: [latent.tolist() for latent in start]} if start else {}
    with open_run(out, options, "prune", record, sweep.reporter, state=begun) as run:
        for name in (BASE, LATENCY):  # so that the run can go on by itself, like any other
            if (sweep.directory / name).exists() and not (out / name).exists():
                with replacing(out / name) as temporary:
                    shutil.copyfile(sweep.directory / name, temporary)
        summary = Stages(run, options, choices).cut(replace(base, problem=problem))
        run.finish(summary.to_json())
    return summary


def _start(
    problem: Problem,
    options: PruneOptions,
    directory: Path,
    point: _Point,
    points: Sequence[_Point],
) -> list[FloatArray]:
    """The latents that a run starts from: one for widths between others', and their β."""
    if not point.start:
        return []
    ranker = problem.ranker(options, problem.budget)
    plans = {name: read_plan(directory / name) for name in point.start}
    limits = {other.name: other.limit for other in points}
    widths = {
        limits[name]: ranker.widths.of(mask_of(problem.graph, plan)) for name, plan in plans.items()
    }
    narrower = max(limit for limit in widths if limit < point.limit)
    wider = min((limit for limit in widths if limit > point.limit), default=None)
    end = ranker.widths.full if wider is None else widths[wider]
    middle = between(ranker, widths[narrower], end)
    return [middle, *(_latent(ranker, problem, plan) for plan in plans.values())]


def _latent(ranker: Ranker, problem: Problem, plan: Plan) -> FloatArray:
    """The β of a plan; where another thing has decided it, one that stands for its widths."""
    names = [family.name for family in problem.graph.families]
    if plan.compensation == ranker.compensation.name and set(names) == set(plan.latent):
        return np.array([plan.latent[name] for name in names], dtype=np.float64)
    return ranker.widths.latent(ranker.widths.of(mask_of(problem.graph, plan)))


def _outcomes(
    problem: Problem, out: Path, points: Sequence[_Point], summaries: Mapping[str, Summary]
) -> list[SweepPoint]:
    """The figures of each run, with its weight bytes, which a budget need not have."""
    cost = CostModel(problem.graph, ["weights"])
    before = cost.evaluate()["weights"]
    found = []
    for point in points:
        summary = summaries[point.name]
        after = cost.evaluate(mask_of(problem.graph, read_plan(out / point.name)))["weights"]
        size = Cost(RESOURCES["weights"].unit, None, None, before, after, after / before, True)
        found.append(
            SweepPoint(
                directory=point.name,
                bound=point.bound,
                start=point.start,
                trials=summary.trials,
                search_seconds=summary.search_seconds,
                loss_search_best=summary.loss_search_best,
                costs={"weights": size, **summary.costs},
                scores=summary.scores,
                latency=summary.latency,
            )
        )
    return found
