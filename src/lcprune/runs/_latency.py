"""A bound on latency in a run: what is cut is timed, and cut again until it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lcprune.cost import Budget
from lcprune.errors import BudgetError
from lcprune.ranking import Plan
from lcprune.runs._options import PruneOptions
from lcprune.runs._problem import Problem
from lcprune.runs._run import Run
from lcprune.runs._stopwatch import Stopwatch, Times
from lcprune.runs._summary import Cost
from lcprune.slimming import slim

ROUNDS = 3
"""How often a cut is made again after it was measured."""
AIM = 0.99
"""The part of the bound that a further cut aims at, since times differ by a percent."""
SLACK = 0.03
"""The share by which a measurement may differ from the prediction."""


@dataclass(frozen=True)
class Timed:
    """A plan and its times on an engine; ``predicted_ms`` is none without a table.

    ``limit`` is the bound in ns, a fraction of what the base network took in the same turns; none
    where there is no bound.
    """

    plan: Plan
    times: Times
    predicted_ms: float | None = None
    limit: int | None = None

    @property
    def before(self) -> int:
        """What the base network takes, ns."""
        return round(1e6 * self.times.before_ms)

    @property
    def after(self) -> int:
        """What the cut network takes, ns."""
        return round(1e6 * self.times.after_ms)

    @property
    def met(self) -> bool:
        return self.limit is None or self.after <= self.limit

    @property
    def beyond(self) -> float:
        """By which share it takes longer than the bound; below 0 where it is met."""
        return self.after / self.limit - 1 if self.limit else 0.0

    def cost(self, asked: str | None) -> Cost:
        """The entry of a summary's costs."""
        return Cost(
            unit="ns",
            asked=asked,
            limit=self.limit,
            before=self.before,
            after=self.after,
            ratio=self.after / self.before,
            met=self.met,
        )


def cut_in_time(run: Run, options: PruneOptions, problem: Problem, plan: Plan) -> Timed | None:
    """``plan`` timed on the engine, or the last of its further cuts that measured within the bound.

    Where what was measured is beyond the bound, or differs from the prediction by more than
    ``SLACK``, predictions are corrected by what was measured (``_Line``) and the same latent is
    cut again, at most ``ROUNDS`` times; none of them within the bound, it is the fastest one. A
    fraction is one of what the base network took in the same turns. Every time is kept in the run.
    None without an engine.
    """
    watch, table = problem.watch, problem.table
    if watch is None:
        return None
    asked = problem.budget.asked.get("latency")
    limit = problem.limits.get("latency")
    is_part = asked is not None and not asked.strip().endswith("s")  # every unit of time does
    measured: list[Timed] = []
    seen: set[str] = set()
    line, cuts = _Line(), list[Point]()
    while plan.digest not in seen and len(measured) <= ROUNDS:
        seen.add(plan.digest)
        times = _times(run, watch, problem, plan)
        if table is None:
            return Timed(plan, times)
        # What the base takes now, in parts of what it took when the table was scaled to it.
        drift = 1e6 * times.before_ms / problem.before["latency"] if is_part else 1.0
        predicted = line.measured(plan.cost["latency"]) * drift
        now = limit
        if is_part:
            before = {"latency": round(1e6 * times.before_ms)}
            now = Budget(latency=asked).limits(before)["latency"]
        measured.append(Timed(plan, times, predicted / 1e6, now))
        run.reporter.stage(
            f"latency on {watch.engine}: {times.after_ms:.3g} ms"
            f" ({times.after_ms / times.before_ms:.1%} of {times.before_ms:.3g} ms), predicted"
            f" {predicted / 1e6:.3g} ms"
        )
        after = measured[-1].after
        if limit is None or (measured[-1].met and abs(after / predicted - 1) <= SLACK):
            break
        cuts.append((plan.cost["latency"], after / drift))
        line = _Line.near(AIM * limit, 2 * (problem.before["latency"],), cuts)
        if line.slope <= 0:  # what is predicted to be slower is faster
            break
        again = _again(options, problem, plan, line.predicted(AIM * limit))
        if again is None:
            break
        plan = again
    within = [one for one in measured if one.met]
    best = within[-1] if within else min(measured, key=lambda one: one.beyond)
    if not best.met:
        run.reporter.warn(
            f"no cut measured within latency={asked}: the fastest takes {best.times.after_ms:.3g}"
            f" ms of {best.times.before_ms:.3g}, {best.beyond:.1%} beyond the bound; a lower bound"
            " would help"
        )
    return best


Point = tuple[float, float]
"""What a table predicts of a network, and what was measured of it, ns."""


@dataclass(frozen=True)
class _Line:
    """What is measured of what a table predicts, along a line through two points."""

    one: Point = (0.0, 0.0)
    other: Point = (1.0, 1.0)

    @classmethod
    def near(cls, aim: float, whole: Point, cuts: Sequence[Point]) -> _Line:
        """The line by which to look for a cut that takes ``aim`` ns.

        Between the nearest cut below and the nearest above, which may be the whole network. Where
        all cuts are above, through the lowest two, since an engine takes time that no operator has
        by itself; through the only one and nothing, which corrects the table by a factor.
        """
        below = [point for point in cuts if point[1] < aim]
        above = sorted(
            (point for point in (*cuts, whole) if point[1] >= aim), key=lambda point: point[1]
        )
        if below:
            return cls(max(below, key=lambda point: point[1]), above[0] if above else whole)
        if len(above) > 2 and cls(*above[:2]).slope > 0:
            return cls(*above[:2])
        return cls(other=above[0])

    @property
    def slope(self) -> float:
        (left, low), (right, high) = sorted((self.one, self.other))
        return (high - low) / (right - left) if right > left else 0.0

    def measured(self, predicted: float) -> float:
        return self.one[1] + self.slope * (predicted - self.one[0])

    def predicted(self, measured: float) -> float:
        return self.one[0] + (measured - self.one[1]) / self.slope


def _times(run: Run, watch: Stopwatch, problem: Problem, plan: Plan) -> Times:
    def measured() -> dict[str, float]:
        small = slim(problem.model, plan)
        example = problem.example
        return asdict(watch.times(problem.model, small, problem.graph, plan, example))

    times: Times = run.once(f"latency of {plan.digest}", Times, measured)
    return times


def _again(options: PruneOptions, problem: Problem, plan: Plan, limit: float) -> Plan | None:
    """The plan of the same latent at another limit; none where there is no such cut."""
    bounds = {**problem.budget.asked, "latency": f"{max(1, int(limit))}ns"}
    try:
        ranker = problem.ranker(options, Budget(**bounds))
    except BudgetError:  # the floors are above it, or the whole network is below
        return None
    names = [family.name for family in problem.graph.families]
    latent = np.array([plan.latent[name] for name in names]).reshape(len(names), -1)
    return ranker.plan(ranker.read_latent(latent))
