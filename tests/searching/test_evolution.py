"""Regularised evolution, and the random search that it must beat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import chain
from lcprune.cost import Budget
from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.ranking import Ranker
from lcprune.searching import (
    Candidate,
    Evolution,
    RandomSearch,
    Strategy,
    choose_strategy,
    trial_generator,
)
from searching.spaces import chain_ranker, drive

FAMILIES = [4] * 20


class Uncut(Ranker):
    """Cuts nothing: these tests look at latents alone."""

    def keep(self, latent: np.ndarray) -> np.ndarray:
        return np.ones(sum(FAMILIES), dtype=np.bool_)


def ranker_of(compensation: str) -> Ranker:
    scores = Saliency(np.random.default_rng(0).random(sum(FAMILIES)), "l2", "sum")
    _, graph = chain(FAMILIES)
    return Uncut(graph, scores, Budget(macs=0.5), compensation=compensation)


ADDITIVE, AFFINE = ranker_of("additive"), ranker_of("affine")


def latent(candidate: Candidate) -> np.ndarray:
    return np.array(candidate.note["latent"])


def loss(candidate: Candidate) -> float:
    """A bowl: the nearer to 0.3, the better."""
    return float(((latent(candidate) - 0.3) ** 2).sum())


def run(strategy: Strategy, trials: int) -> list[Candidate]:
    return [candidate for candidate, _ in drive(strategy, trials, loss)]


@pytest.mark.parametrize("ranker", [ADDITIVE, AFFINE], ids=["additive", "affine"])
@pytest.mark.parametrize("make", [Evolution, RandomSearch])
@settings(max_examples=5)
@given(seed=st.integers(0, 2**40))
def test_no_two_candidates_are_alike(make: type, ranker: Ranker, seed: int) -> None:
    candidates = run(make(ranker, 70, seed), 70)
    assert len({latent(candidate).tobytes() for candidate in candidates}) == 70


@pytest.mark.parametrize("make", [Evolution, RandomSearch])
def test_the_first_is_the_identity_then_come_draws(make: type) -> None:
    candidates = run(make(ADDITIVE, 400), 70)
    assert (latent(candidates[0]) == ADDITIVE.compensation.identity()).all()
    expected = ["identity"] + ["draw"] * 63 + ["child" if make is Evolution else "draw"] * 6
    assert [candidate.note["origin"] for candidate in candidates] == expected


@pytest.mark.parametrize("ranker", [ADDITIVE, AFFINE], ids=["additive", "affine"])
@pytest.mark.parametrize("seed", range(3))
def test_every_family_is_perturbed_within_a_run(ranker: Ranker, seed: int) -> None:
    candidates = run(Evolution(ranker, 400, seed), 400)
    moved = np.zeros(len(FAMILIES), dtype=int)
    for child in candidates[64:]:
        changed = (latent(child) != latent(candidates[child.note["parent"]])).any(axis=1)
        assert changed.sum() == 2
        moved += changed
    # 336 children x 2 of 20 families: each is expected 33.6 times.
    assert moved.min() > 10


def test_the_parent_is_the_winner_of_a_tournament_among_the_living() -> None:
    strategy = Evolution(ADDITIVE, 300, population=10, tournament=4)
    losses: dict[int, float] = {}
    ranks: list[int] = []
    for number in range(300):
        living = strategy.population
        candidate = strategy.ask()
        if "parent" in candidate.note:
            parent = candidate.note["parent"]
            assert parent in living
            ranks.append(sorted(living, key=losses.__getitem__).index(parent))
        losses[number] = loss(candidate)
        strategy.tell(candidate, losses[number])
    assert len(ranks) == 290
    # Best of 4 among 10 without repetition: the three worst never win, the best wins 40 %.
    assert max(ranks) <= 6
    assert 0.3 < ranks.count(0) / len(ranks) < 0.5


def test_a_tournament_of_all_is_won_by_the_best_alive() -> None:
    strategy = Evolution(ADDITIVE, 200, population=12, tournament=12)
    losses: dict[int, float] = {}
    for number in range(200):
        best = min(strategy.population, key=losses.__getitem__, default=None)
        candidate = strategy.ask()
        assert candidate.note.get("parent") == (best if number >= 12 else None)
        losses[number] = loss(candidate)
        strategy.tell(candidate, losses[number])


def test_the_oldest_leaves_however_good() -> None:
    strategy = Evolution(ADDITIVE, 100, population=8, tournament=3)
    for number in range(40):
        candidate = strategy.ask()
        # The identity is by far the best, and the others get worse and worse.
        strategy.tell(candidate, float(number))
        assert strategy.population == tuple(range(max(0, number - 7), number + 1))


def test_the_step_shrinks_over_the_run() -> None:
    sizes = []
    candidates = run(Evolution(ADDITIVE, 1000, share=1.0), 1000)
    for child in candidates[64:]:
        sizes.append((latent(child) - latent(candidates[child.note["parent"]])).std())
    start, end = np.mean(sizes[:50]), np.mean(sizes[-50:])
    assert end / start == pytest.approx(0.22 / 0.93, rel=0.15)


def test_evolution_beats_random_search_on_a_bowl() -> None:
    best = {
        make: np.median([min(map(loss, run(make(ADDITIVE, 400, s), 400))) for s in range(3)])
        for make in (Evolution, RandomSearch)
    }
    assert best[Evolution] < 0.7 * best[RandomSearch]


def test_candidates_can_be_asked_ahead_of_losses() -> None:
    strategy = Evolution(ADDITIVE, 400, population=4, tournament=2)
    ahead = [strategy.ask() for _ in range(6)]
    assert [candidate.note["origin"] for candidate in ahead[4:]] == ["draw", "draw"]
    for candidate in reversed(ahead):
        strategy.tell(candidate, loss(candidate))
    assert strategy.ask().number == 6


def test_generators_of_trials_are_their_own() -> None:
    draws = [trial_generator(seed, n).random() for seed in (0, 1) for n in (0, 1)]
    assert len(set(draws)) == 4
    assert trial_generator(1, 0).random() == draws[2]


def test_infinite_losses_never_win() -> None:
    strategy = Evolution(ADDITIVE, 100, population=6, tournament=6)
    for number in range(30):
        candidate = strategy.ask()
        if number >= 6:
            assert candidate.note["parent"] % 3 == 1
        strategy.tell(candidate, 1.0 if number % 3 == 1 else float("inf"))


def test_names() -> None:
    ranker = chain_ranker([8, 8])
    assert choose_strategy("evolution", ranker, 10, 0).settings == {
        "name": "evolution",
        "population": 64,
        "tournament": 16,
        "share": 0.1,
    }
    assert choose_strategy("random", ranker, 10, 0).settings == {"name": "random"}
    assert choose_strategy("auto", ranker, 10, 0).settings["name"] == "auto"
    own = Evolution(ADDITIVE, 10)
    assert choose_strategy(own, ranker, 10, 0) is own
    assert isinstance(choose_strategy(RandomSearch, ranker, 10, 0), RandomSearch)
    with pytest.raises(InputError, match=r"strategy is 'cma', expected .*auto, evolution, random"):
        choose_strategy("cma", ranker, 10, 0)


@pytest.mark.parametrize(
    "bad",
    [{"population": 0}, {"tournament": 0}, {"tournament": 65}, {"share": 1.5}, {"trials": 0}],
)
def test_senseless_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Evolution(ADDITIVE, **{"trials": 10, **bad})  # type: ignore[arg-type]
