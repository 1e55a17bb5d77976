"""The figures of a sweep, as ``sweep.json`` holds them, its front and its knee."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lcprune._checks import path
from lcprune.runs._run import SWEEP
from lcprune.runs._summary import Cost, Figures, Latency, Scores, read_figures

_ROUNDING = 1e-9
"""A point this far above a line, from 0 to 1, is on it."""


@dataclass(frozen=True)
class SweepPoint:
    """A run of a sweep, in ``directory`` within the sweep's, with the figures of its summary.

    ``bound`` is that on the sweep's resource, as it was written. ``start`` names the runs whose
    best plans its search began with. ``costs`` has ``weights`` (bytes) always. ``on_front`` tells
    that no other run is as good in accuracy, every cost and every latency, and better in one.
    """

    directory: str
    bound: str
    start: tuple[str, ...]
    trials: int
    search_seconds: float | None
    loss_search_best: float | None
    costs: Mapping[str, Cost]
    scores: Mapping[str, Scores]
    latency: tuple[Latency, ...]
    on_front: bool = True


@dataclass(frozen=True)
class SweepSummary(Figures):
    """What a sweep over bounds on ``resource`` did, as ``sweep.json`` holds it.

    ``budget`` has the bounds that hold for all. ``points`` are ascending by bound. ``knee`` is the
    directory of the run beyond which accuracy costs more than on average; none where none is.
    """

    model: str
    data: str
    seed: int
    resource: str
    budget: tuple[str, ...]
    strategy: str
    points: tuple[SweepPoint, ...]
    knee: str | None
    versions: Mapping[str, str]


def read_sweep(directory: str | os.PathLike[str]) -> SweepSummary:
    """The summary of a sweep; ``InputError`` where there is none or it can't be read."""
    return read_figures(path("directory", directory), SweepSummary, SWEEP)


def on_front(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """The points, each with whether another one dominates it."""
    return tuple(
        replace(one, on_front=not any(_dominates(other, one) for other in points)) for one in points
    )


def _dominates(one: SweepPoint, other: SweepPoint) -> bool:
    """Whether ``one`` is as good in everything and better in something."""
    pairs = list(zip(_badness(one), _badness(other), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _badness(point: SweepPoint) -> list[float]:
    """What is better if it is less: every cost, the latencies as shares of the base's, errors."""
    return [
        *(-(scores.top1 or 0.0) for name, scores in point.scores.items() if name == "after"),
        *(point.costs[name].ratio for name in sorted(point.costs)),
        *(_latency_ratio(latency) for latency in point.latency),
    ]


def _latency_ratio(latency: Latency) -> float:
    before, after = latency.before_ms, latency.after_ms
    return after / before if before and after else 0.0


def knee(points: Sequence[SweepPoint], resource: str) -> str | None:
    """The point that is farthest above the line between the curve's ends, both axes from 0 to 1.

    The curve is accuracy by what the sweep bounds, over the points that no other beats in both,
    the base network among them. None where no point between the ends is above the line.

    Source: Satopää, Albrecht, Irwin, Raghavan, "Finding a 'Kneedle' in a haystack: detecting knee
    points in system behavior", ICDCS Workshops 2011, section III, for an offline curve without
    smoothing.
    """
    base: Scores = points[0].scores["before"]
    curve = [(p.costs[resource].ratio, p.scores["after"].top1 or 0.0, p.directory) for p in points]
    curve.append((1.0, base.top1 or 0.0, ""))
    curve.sort(key=lambda at: (at[0], -at[1]))
    front: list[tuple[float, float, str]] = []
    for at in curve:
        if not front or at[1] > front[-1][1]:
            front.append(at)
    (low, worst, _), (high, best, _) = front[0], front[-1]
    above = [
        ((top1 - worst) / (best - worst) - (ratio - low) / (high - low), name)
        for ratio, top1, name in front[1:-1]
    ]
    distance, name = max(above, default=(0.0, ""))
    return name if distance > _ROUNDING else None
