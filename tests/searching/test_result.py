"""The finalists of a search: the best plan, and others that are not the same again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graphs import chain
from lcprune.cost import Budget
from lcprune.criteria import saliency
from lcprune.errors import InputError
from lcprune.ranking import Plan, rank
from lcprune.searching import SearchResult, Trial, search
from lcprune.searching._result import choose_finalists
from searching.small_search import evolution

MODEL, GRAPH = chain([24, 20, 28, 32])
SALIENCY = saliency(MODEL, GRAPH, "l2")
BUDGET = Budget(macs=0.5)
IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def fitness(small: nn.Module) -> float:
    """How far the outputs are from the original's."""
    with torch.no_grad():
        return float((small.eval()(IMAGES) - MODEL.eval()(IMAGES)).square().mean())


def run(**options: Any) -> SearchResult:
    given = {"fitness": fitness, "trials": 40, "seed": 4, "strategy": evolution, **options}
    return search(MODEL, GRAPH, SALIENCY, BUDGET, **given)


@cache
def found() -> SearchResult:
    return run(finalists=4)


def removed(plan: Plan) -> set[int]:
    """The groups that a plan removes, by what it says of every tensor."""
    gone: set[int] = set()
    for dimension in GRAPH.dimensions:
        channels = dimension.channels.tolist()
        kept = plan.kept.get(dimension.key, range(len(channels)))
        gone |= {channels[i] for i in set(range(len(channels))) - set(kept)}
    return gone


def are_two(one: set[int], other: set[int], best: set[int], families: list[int]) -> bool:
    """Whether plans that remove these groups are two, where ``best`` is what the best removes."""
    members: dict[int, int] = {}
    for group in one ^ other:
        members[families[group]] = members.get(families[group], 0) + 1
    return sum(count for count in members.values() if count >= 2) >= 0.05 * len(best)


def check(
    chosen: list[Trial],
    trials: list[Trial],
    gone: Mapping[int, set[int]],
    families: list[int],
    count: int,
) -> None:
    """That ``chosen`` is what a greedy choice gives, by what makes it one.

    ``gone`` is what the plan of a trial removes, by the trial's number.
    """
    good = [t for t in trials if math.isfinite(t.loss) and t.final]
    good.sort(key=lambda t: (t.loss, t.number))
    places = [good.index(trial) for trial in chosen]
    assert places == sorted(set(places))
    assert len(places) <= count
    if good:
        assert places[0] == 0
    best = gone[good[0].number] if good else set()
    for i, trial in enumerate(chosen):
        for other in chosen[:i]:
            assert are_two(gone[trial.number], gone[other.number], best, families)
    # Whoever was passed over is nearly the same as one that was chosen before.
    end = places[-1] if len(places) == count else len(good)
    for place in set(range(end)) - set(places):
        before = [chosen[i] for i, chosen_at in enumerate(places) if chosen_at < place]
        assert any(
            not are_two(gone[good[place].number], gone[other.number], best, families)
            for other in before
        )


FAMILIES = sorted([*range(20)] * 10)


SHARES = [0.0, 0.01, 0.03, 0.06, 0.1]
"""Of the groups in which a plan differs from that whose neighbour it is."""


def crowd(seed: int) -> list[Trial]:
    """Trials of some plans and neighbours of theirs, many losses more than once."""
    generator = np.random.default_rng(seed)
    groups = len(FAMILIES)
    some = [generator.random(groups) < share for share in generator.choice([0.2, 0.8], 3)]
    keeps = [keep ^ (generator.random(groups) < share) for keep in some for share in SHARES]
    return [
        Trial(
            number=number,
            keep=keep,
            loss=float(generator.choice([0.1, 0.2, 0.3, 0.4, math.inf])),
            digest=str(keep.tolist()),
            cost={},
            final=bool(generator.random() < 2 / 3),
        )
        for number, keep in enumerate(keeps)
    ]


def gone(trials: Sequence[Trial]) -> dict[int, set[int]]:
    return {trial.number: set(np.flatnonzero(~trial.keep).tolist()) for trial in trials}


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_choice_is_greedy(seed: int, count: int) -> None:
    trials = crowd(seed)
    chosen = choose_finalists(trials, np.array(FAMILIES), count)
    check(chosen, trials, gone(trials), FAMILIES, count)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 14))
def test_the_reference_is_the_last_of_several(seed: int, count: int, place: int) -> None:
    trials = crowd(seed)
    trials[place] = replace(trials[place], final=True)

    def numbers(reference: bool) -> list[int]:
        one = replace(trials[place], reference=reference)
        own = [*trials[:place], one, *trials[place + 1 :]]
        return [trial.number for trial in choose_finalists(own, np.array(FAMILIES), count)]

    plain = numbers(reference=False)
    removed = gone(trials)
    another = all(are_two(removed[place], removed[n], removed[plain[0]], FAMILIES) for n in plain)
    if count > 1 and math.isfinite(trials[place].loss) and another:
        assert numbers(reference=True) == [*plain[: count - 1], place]
    else:
        assert numbers(reference=True) == plain


def test_a_search_of_auto_ends_with_the_uniform_width() -> None:
    result = run(strategy="auto", trials=24, finalists=3)
    uniform = next(trial for trial in result.history if trial.note["origin"] == "uniform")
    assert result.finalists[-1].digest == uniform.digest
    assert len(result.finalists) == 3
    losses = [result.loss_of(plan) for plan in result.finalists]
    assert losses == sorted(losses)
    assert run(strategy="auto", trials=24).plan == result.plan


def test_those_of_a_search_by_its_plans_alone() -> None:
    result = found()
    numbers = {trial.digest: trial.number for trial in reversed(result.history)}
    trials = {trial.number: trial for trial in result.history}
    gone = {
        trial.number: removed(rank(GRAPH, SALIENCY, BUDGET, np.array(trial.note["latent"])))
        for trial in result.history
    }
    chosen = [trials[numbers[plan.digest]] for plan in result.finalists]
    check(chosen, list(result.history), gone, GRAPH.family_of.tolist(), 4)
    assert [removed(plan) for plan in result.finalists] == [gone[t.number] for t in chosen]
    assert len(chosen) == 4
    assert result.finalists[0] == result.plan
    assert [result.loss_of(plan) for plan in result.finalists] == [t.loss for t in chosen]
    # Else nothing was passed over, and the test would say little.
    ranked = sorted({t.loss for t in result.history})
    assert [t.loss for t in chosen] != ranked[:4]


def test_a_search_is_the_same_with_and_without_them(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    alone = run(journal=journal)
    assert alone.finalists == (alone.plan,)
    assert alone.history == found().history
    again = run(journal=journal, finalists=4)
    assert again.resumed == 40
    assert again.finalists == found().finalists


def test_there_are_fewer_where_there_are_no_more() -> None:
    assert len(run(compensation="none", finalists=3).finalists) == 1
    assert 1 <= len(run(trials=3, finalists=5).finalists) <= 3


def test_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finalists is 0, expected an integer of at least 1"):
        run(finalists=0, journal=tmp_path / "search.sqlite")
    assert not list(tmp_path.iterdir())


def test_a_plan_that_was_not_tried_has_no_loss() -> None:
    with pytest.raises(InputError, match="not tried"):
        found().loss_of(rank(GRAPH, SALIENCY, Budget(macs=0.3)))
