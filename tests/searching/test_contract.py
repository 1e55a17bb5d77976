"""What every strategy by name keeps to, whatever it proposes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import Steps
from lcprune.ranking import Ranker, RoundTo
from lcprune.searching import STRATEGIES, Candidate, Evolution, Strategy
from searching.spaces import Convex, Run, chain_ranker, drive

SIZES = [6, 10, 4, 8]
TRIALS = 26
RANKER = chain_ranker(SIZES)
LOSS = Convex(RANKER)

SMALL = {
    # With so few trials the first population would never end.
    "evolution": lambda ranker, trials, seed, **more: Evolution(
        ranker, trials, seed, population=6, tournament=3, **more
    ),
}

TRAINED = {f"{name}, trained": name for name in STRATEGIES}
"""The same, with losses after some steps of training."""

every = pytest.mark.parametrize("name", [*STRATEGIES, *TRAINED])


def new(name: str, seed: int = 0, ranker: Ranker = RANKER) -> Strategy:
    make = {**STRATEGIES, **SMALL}[TRAINED.get(name, name)]
    return make(ranker, TRIALS, seed, **({"steps": 7} if name in TRAINED else {}))


@cache
def whole(name: str, seed: int = 0) -> Run:
    return drive(new(name, seed), TRIALS, LOSS)


def described(candidate: Candidate) -> object:
    return (
        candidate.number,
        candidate.keep.tolist(),
        candidate.share,
        candidate.steps,
        candidate.final,
        candidate.reference,
        dict(candidate.note),
    )


def same(one: Run, other: Run) -> bool:
    return [described(c) for c, _ in one] == [described(c) for c, _ in other]


@every
def test_settings_are_json_with_the_name_and_never_change(name: str) -> None:
    strategy = new(name)
    before = json.loads(json.dumps(strategy.settings, allow_nan=False))
    drive(strategy, 8, LOSS)
    assert before["name"] == TRAINED.get(name, name)
    assert before == dict(strategy.settings) == dict(new(name, seed=1).settings)


@every
def test_candidates_are_numbered_whole_and_of_the_share_that_they_say(name: str) -> None:
    candidates = [candidate for candidate, _ in whole(name)]
    assert [candidate.number for candidate in candidates] == list(range(TRIALS))
    assert candidates[0].final
    for candidate in candidates:
        assert candidate.keep.dtype == np.bool_
        assert candidate.keep.shape == (sum(SIZES),)
        assert 0 < candidate.share <= 1
        assert candidate.final or candidate.share < 1


@every
@pytest.mark.parametrize("compensation", ["additive", "affine:rank"])
@pytest.mark.parametrize("round_to", [1, 3, "auto"])
def test_final_masks_are_within_the_budget_and_maximal(
    name: str, compensation: str, round_to: RoundTo
) -> None:
    table = Steps(((2, 5, 6), (3, 4, 8, 10), (1, 4), (2, 3, 5, 8)))
    ranker = chain_ranker(
        SIZES, 0.6, compensation=compensation, round_to=round_to, resources=[table]
    )
    space = ranker.widths
    finals = [c for c, _ in drive(new(name, ranker=ranker), TRIALS, Convex(ranker)) if c.final]
    assert len({candidate.keep.tobytes() for candidate in finals}) > 1
    for candidate in finals:
        ranker.check(candidate.keep)
        widths = space.of(candidate.keep)
        assert space.fit(widths)
        # All channels of a layer cost the same, so that a block is a family one rung wider.
        for family, rungs in enumerate(space.rungs):
            for rung in rungs[rungs > widths[family]][:1]:
                wider = widths.copy()
                wider[family] = rung
                assert not space.fit(wider)


@every
def test_a_latent_in_the_note_is_the_one_that_gave_the_mask(name: str) -> None:
    for candidate, _ in whole(name):
        latent = RANKER.read_latent(candidate.note["latent"])
        cut = RANKER.keep(latent) if candidate.final else RANKER.at_least_0(latent)
        assert candidate.keep.tolist() == cut.tolist()


@every
def test_same_seed_same_run_other_seed_another(name: str) -> None:
    assert same(drive(new(name), TRIALS, LOSS), whole(name))
    assert not same(whole(name, 1), whole(name))


def check_resumed(name: str, seed: int, stop: int) -> None:
    """Told what a journal gives back: the note has been text in between."""
    resumed = new(name, seed)
    for candidate, loss in whole(name, seed)[:stop]:
        read = json.loads(json.dumps(dict(candidate.note), allow_nan=False))
        resumed.tell(replace(candidate, note=read), loss)
    assert same(drive(resumed, TRIALS - stop, LOSS), whole(name, seed)[stop:])


@every
@pytest.mark.parametrize("stop", [1, 4, 8, 20])
def test_one_that_was_only_told_goes_on_like_the_unbroken_run(name: str, stop: int) -> None:
    check_resumed(name, 0, stop)


@pytest.mark.thorough
@every
@given(seed=st.integers(0, 1000), stop=st.integers(0, TRIALS - 1))
def test_so_it_does_from_any_moment_with_any_seed(name: str, seed: int, stop: int) -> None:
    check_resumed(name, seed, stop)


def in_disorder(strategy: Strategy, seed: int) -> list[Candidate]:
    """All candidates of a run in which up to four are in flight and finish in any order."""
    generator = np.random.default_rng(seed)
    asked: list[Candidate] = []
    flying: list[Candidate] = []
    told = 0
    while told < TRIALS:
        if len(flying) < 4 and len(asked) < TRIALS and (not flying or generator.random() < 0.6):
            asked.append(strategy.ask())
            flying.append(asked[-1])
        else:
            candidate = flying.pop(int(generator.integers(len(flying))))
            strategy.tell(candidate, LOSS(candidate))
            told += 1
    return asked


@every
def test_only_the_order_of_calls_matters(name: str) -> None:
    runs = [in_disorder(new(name), order) for order in (0, 0, 1, 2)]
    texts = [[described(candidate) for candidate in run] for run in runs]
    assert texts[0] == texts[1]
    if TRAINED.get(name, name) != "random":
        assert all(one != other for one, other in combinations(texts[1:], 2))
    assert [candidate.number for candidate in runs[2]] == list(range(TRIALS))


@every
@pytest.mark.parametrize(
    "bad", [lambda number: True, lambda number: number % 3 == 0], ids=["all", "some"]
)
def test_losses_that_are_not_finite_are_survived(name: str, bad: Callable[[int], bool]) -> None:
    def loss(candidate: Candidate) -> float:
        return np.inf if bad(candidate.number) else LOSS(candidate)

    assert len(drive(new(name), TRIALS, loss)) == TRIALS


@every
@pytest.mark.parametrize("sizes", [[12], [2, 2], [1, 6]], ids=str)
def test_small_networks(name: str, sizes: list[int]) -> None:
    ranker = chain_ranker(sizes, 0.6)
    for candidate, _ in drive(new(name, ranker=ranker), TRIALS, Convex(ranker)):
        if candidate.final:
            ranker.check(candidate.keep)
