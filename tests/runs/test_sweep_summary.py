"""Which runs of a sweep are worth looking at: the front, and the knee of its curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.errors import InputError
from lcprune.runs import Cost, Latency, Scores, SweepPoint, SweepSummary
from lcprune.runs._sweep_summary import knee, on_front


def point(
    macs: float, top1: float, base: float = 90.0, params: float = 0.5, ms: float = 1.0
) -> SweepPoint:
    """A run that has a share ``macs`` of the base network's."""
    costs = {
        name: Cost("", None, None, 1000, int(1000 * ratio), ratio, True)
        for name, ratio in (("macs", macs), ("params", params))
    }
    return SweepPoint(
        directory=f"macs-{100 * macs:g}",
        bound=f"{100 * macs:g}%",
        start=(),
        trials=1,
        search_seconds=1.0,
        loss_search_best=1.0,
        costs=costs,
        scores={"before": Scores(base), "after": Scores(top1)},
        latency=(Latency("pytorch", 1, 1, 2.0, ms),),
    )


def test_the_knee_is_where_accuracy_begins_to_cost_more() -> None:
    points = [point(0.1, 50), point(0.2, 80), point(0.4, 85), point(0.7, 88)]
    assert knee(points, "macs") == "macs-20"


@pytest.mark.parametrize(
    "points",
    [
        [point(0.2, 50), point(0.5, 60)],  # the curve bends the other way
        [point(0.2, 80), point(0.6, 85)],  # on the line from 0.2, 80 to 1, 90
        [point(0.5, 60)],
        [point(0.2, 91), point(0.5, 90.5)],  # none beats the smallest
    ],
)
def test_there_may_be_none(points: Sequence[SweepPoint]) -> None:
    assert knee(points, "macs") is None


def test_what_another_beats_is_no_knee() -> None:
    points = [point(0.1, 50), point(0.3, 86), point(0.4, 84), point(0.7, 88)]
    assert knee(points, "macs") == "macs-30"


values = st.integers(1, 99).map(lambda n: n / 100)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=6, unique_by=lambda at: at[0]))
def test_the_knee_is_farthest_from_the_chord(curve: list[tuple[float, float]]) -> None:
    """By the distance in the plane, over the upper left corner points."""
    points = [point(macs, 100 * top1, base=95) for macs, top1 in curve]
    at = np.array(sorted([*curve, (1.0, 0.95)]))
    corners = [i for i in range(len(at)) if (at[:i, 1] < at[i, 1]).all()]
    front = at[corners]
    found = knee(points, "macs")
    if len(front) < 3:
        assert found is None
        return
    unit = (front - front[0]) / (front[-1] - front[0])
    away = (unit[:, 1] - unit[:, 0]) / np.sqrt(2)
    if away.max() < 1e-9:
        assert found is None or away.max() > -1e-9
    else:
        best = {f"macs-{100 * macs:g}" for macs in front[away > away.max() - 1e-9, 0]}
        assert found in best


def test_one_is_on_the_front_unless_another_is_as_good_in_all_and_better_in_one() -> None:
    good = point(0.3, 80, params=0.4, ms=1.0)
    cases = {
        "worse in all": (point(0.4, 79, params=0.5, ms=1.1), False),
        "worse in one": (point(0.3, 80, params=0.4, ms=1.1), False),
        "the same": (point(0.3, 80, params=0.4, ms=1.0), True),
        "faster": (point(0.4, 79, params=0.5, ms=0.9), True),
        "smaller": (point(0.4, 79, params=0.3, ms=1.1), True),
        "better": (point(0.4, 81, params=0.5, ms=1.1), True),
    }
    for what, (other, expected) in cases.items():
        assert [one.on_front for one in on_front([good, other])] == [True, expected], what


def test_a_summary_is_read_as_it_was_written() -> None:
    summary = SweepSummary(
        model="m",
        data="d",
        seed=0,
        resource="macs",
        budget=("params=50%",),
        strategy="auto",
        points=on_front([point(0.3, 80), point(0.4, 70)]),
        knee=None,
        versions={"lcprune": "1"},
    )
    assert SweepSummary.from_json(summary.to_json()) == summary
    for text in ("", "{}", summary.to_json().replace('"points"', '"dots"')):
        with pytest.raises(InputError, match="not a summary"):
            SweepSummary.from_json(text)
