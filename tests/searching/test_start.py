"""Searches that begin with plans of others: what comes first, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.cost import Budget
from lcprune.errors import InputError, RunError
from lcprune.ranking import Plan, Ranker, rank
from lcprune.searching import STRATEGIES, Evolution, Strategy, between, read_journal
from searching.small_search import BUDGET, GRAPH, SALIENCY, Fitness, press_ctrl_c, run
from searching.spaces import Convex, chain_ranker, drive

SIZES = [6, 10, 4, 8]
TRIALS = 20
RANKER = chain_ranker(SIZES)
LOSS = Convex(RANKER)
LATENTS = [RANKER.compensation.draw(np.random.default_rng(n)) for n in range(2)]

every = pytest.mark.parametrize("name", STRATEGIES)


def new(name: str, start: Any = LATENTS) -> Strategy:
    return STRATEGIES[name](RANKER, TRIALS, 0, start=start)


@every
def test_what_is_given_comes_first_and_then_the_identity(name: str) -> None:
    candidates = [candidate for candidate, _ in drive(new(name), TRIALS, LOSS)]
    for latent, candidate in zip(LATENTS, candidates, strict=False):
        assert candidate.keep.tolist() == RANKER.keep(latent).tolist()
        assert candidate.note == {"origin": "start", "latent": latent.tolist()}
    assert candidates[2].note["origin"] == "identity"
    assert not {"start", "identity"} & {c.note["origin"] for c in candidates[3:]}
    assert [candidate.number for candidate in candidates] == list(range(TRIALS))
    assert all(candidate.final for candidate in candidates[:3])


@every
@pytest.mark.parametrize("stop", [1, 3, 9])
def test_one_that_was_only_told_goes_on_like_the_unbroken_run(name: str, stop: int) -> None:
    whole, resumed = drive(new(name), TRIALS, LOSS), new(name)
    for candidate, loss in whole[:stop]:
        resumed.tell(replace(candidate, note=json.loads(json.dumps(dict(candidate.note)))), loss)
    rest = drive(resumed, TRIALS - stop, LOSS)
    assert [c.note for c, _ in rest] == [c.note for c, _ in whole[stop:]]


def test_evolution_draws_none_and_auto_probes_none() -> None:
    for name in ("evolution", "auto"):
        origins = {c.note["origin"] for c, _ in drive(new(name), TRIALS, LOSS)}
        assert "child" in origins
        assert not {"draw", "probe", "allocation"} & origins
        assert {"draw", "probe"} & {c.note["origin"] for c, _ in drive(new(name, ()), TRIALS, LOSS)}


@given(low=st.floats(0.25, 0.4), share=st.floats(0.0, 1.0), seed=st.integers(0, 20))
def test_widths_between_two_fit_and_are_nowhere_outside(
    low: float, share: float, seed: int
) -> None:
    sizes = [12, 20, 9, 16]
    high = 0.8
    ends = [chain_ranker(sizes, macs) for macs in (low, high)]
    middle = chain_ranker(sizes, low + share * (high - low))
    generator = np.random.default_rng(seed)
    narrow = ends[0].widths.of(ends[0].keep(ends[0].compensation.draw(generator)))
    wide = np.maximum(narrow, ends[1].widths.of(ends[1].keep(ends[1].compensation.identity())))
    keep = middle.keep(between(middle, narrow, wide))
    middle.check(keep)
    found = middle.widths.of(keep)
    assert (found >= narrow).all()
    if middle.widths.fit(narrow) and not middle.widths.fit(wide):
        # What was left after the way, less than a step of it, is filled up somewhere.
        step = middle.widths.costs(np.minimum(found + 1, middle.widths.full))
        assert (step > middle.widths.limits).any()


def test_of_two_ends_that_fit_the_wide_one_is_kept_and_filled() -> None:
    narrow, wide = np.array([2, 3, 1, 2]), np.array([3, 4, 2, 3])
    ranker = chain_ranker(SIZES, 0.6)
    assert ranker.widths.fit(wide)
    assert (ranker.widths.of(ranker.keep(between(ranker, narrow, wide))) >= wide).all()


def test_between_ends_that_do_not_fit_there_is_the_uniform_width() -> None:
    full = RANKER.widths.full
    widths = RANKER.widths.of(RANKER.keep(between(RANKER, full, full)))
    assert RANKER.widths.fit(widths)


# In a search.

TIGHT = run(budget=Budget(macs=0.3), trials=6).plan


@every
def test_a_plan_of_another_budget_is_cut_again(name: str) -> None:
    result = run(strategy=name, trials=4, start=[TIGHT])
    beta = [TIGHT.latent[family.name] for family in GRAPH.families]
    assert result.history[0].digest == rank(GRAPH, SALIENCY, BUDGET, beta).digest != TIGHT.digest
    assert result.history[0].note["latent"] == [list(row) for row in beta]


def test_a_plan_and_its_latent_are_the_same_start() -> None:
    beta = [TIGHT.latent[family.name] for family in GRAPH.families]
    one, other = (
        run(strategy="evolution", trials=5, start=[start]) for start in (TIGHT, np.array(beta))
    )
    assert one.history == other.history


def test_an_interrupted_one_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    fitness = Fitness(3, press_ctrl_c)
    options = {"journal": tmp_path / "search.sqlite", "trials": 9, "strategy": "auto"}
    with pytest.raises(KeyboardInterrupt):
        run(fitness=fitness, on_trial=fitness.on_trial, start=[TIGHT], **options)
    for other in ([], [TIGHT, TIGHT], [np.zeros(len(GRAPH.families))]):
        with pytest.raises(RunError, match="start was"):
            run(start=other, **options)
    resumed = run(start=[TIGHT], **options)
    assert resumed.resumed == 3
    assert resumed.history == run(start=[TIGHT], **options | {"journal": None}).history


def test_without_one_the_journal_is_as_it_was(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    run(journal=journal, trials=2)
    assert "start" not in read_journal(journal).identity


class Told:
    """A strategy of somebody's that takes no start."""

    def __init__(self, ranker: Ranker, trials: int, seed: int) -> None: ...


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"start": TIGHT}, "start is"),
        ({"start": "evolution"}, "start is"),
        ({"start": {"f0": 1.0}}, "start is"),
        ({"start": [None]}, "start is"),
        ({"start": [np.zeros(3)]}, "beta of"),
        ({"start": [np.full(len(GRAPH.families), np.nan)]}, "not finite"),
        ({"start": [TIGHT], "compensation": "affine"}, "expected affine"),
        ({"start": [Plan(kept={})]}, "no compensation"),
        ({"start": [np.empty((4, 0))], "compensation": "none"}, "learns nothing"),
        ({"start": [TIGHT], "strategy": Told}, "takes start="),
    ],
)
def test_what_can_not_be_started_from_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        run(**{"strategy": "evolution", **options})
    assert "\n" not in str(caught.value)


def test_an_object_that_is_a_strategy_already_takes_none() -> None:
    made = Evolution(Ranker(GRAPH, SALIENCY, BUDGET), 4)
    with pytest.raises(InputError, match="takes start="):
        run(strategy=made, start=[TIGHT])


def test_a_strategy_of_somebody_s_is_given_latents() -> None:
    seen: list[Any] = []

    def made(ranker: Ranker, trials: int, seed: int, start: Any = ()) -> Strategy:
        seen.append(start)
        return Evolution(ranker, trials, seed, start=start)

    make: Callable[..., Strategy] = made
    run(strategy=make, trials=2, start=[TIGHT])
    run(strategy=make, trials=2)
    assert [len(start) for start in seen] == [1, 0]
