import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import make_graph
from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.ranking import Additive, Affine, Compensation
from lcprune.searching import (
    Candidate,
    Evolution,
    RandomSearch,
    Strategy,
    choose_strategy,
    trial_generator,
)
from searching.spaces import chain_ranker

FAMILIES = [4] * 20
GRAPH = make_graph(FAMILIES, [])
SALIENCY = Saliency(np.random.default_rng(0).random(80), "l2", "sum")
ADDITIVE, AFFINE = Additive(GRAPH, SALIENCY), Affine(GRAPH, SALIENCY)


def loss(candidate: Candidate) -> float:
    """A bowl: the nearer to 0.3, the better."""
    return float(((candidate.latent - 0.3) ** 2).sum())


def run(strategy: Strategy, trials: int) -> list[Candidate]:
    candidates = []
    for _ in range(trials):
        candidates.append(strategy.ask())
        strategy.tell(candidates[-1], loss(candidates[-1]))
    return candidates


def latents(candidates: list[Candidate]) -> list[list[list[float]]]:
    return [candidate.latent.tolist() for candidate in candidates]


@pytest.mark.parametrize("compensation", [ADDITIVE, AFFINE], ids=["additive", "affine"])
@pytest.mark.parametrize("make", [Evolution, RandomSearch])
@given(seed=st.integers(0, 2**40))
def test_no_two_candidates_are_alike(make: type, compensation: Compensation, seed: int) -> None:
    candidates = run(make(compensation, 100, seed), 100)
    distinct = {candidate.latent.tobytes() for candidate in candidates}
    assert len(distinct) == 100
    assert [candidate.number for candidate in candidates] == list(range(100))


@pytest.mark.parametrize("make", [Evolution, RandomSearch])
def test_the_first_is_the_identity_then_come_draws(make: type) -> None:
    candidates = run(make(ADDITIVE, 400), 70)
    assert (candidates[0].latent == ADDITIVE.identity()).all()
    expected = ["identity"] + ["draw"] * 63 + ["child" if make is Evolution else "draw"] * 6
    assert [candidate.origin for candidate in candidates] == expected


@pytest.mark.parametrize("compensation", [ADDITIVE, AFFINE], ids=["additive", "affine"])
@pytest.mark.parametrize("seed", range(3))
def test_every_family_is_perturbed_within_a_run(compensation: Compensation, seed: int) -> None:
    candidates = run(Evolution(compensation, 400, seed), 400)
    moved = np.zeros(len(FAMILIES), dtype=int)
    for child in candidates[64:]:
        assert child.parent is not None
        changed = (child.latent != candidates[child.parent].latent).any(axis=1)
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
        if candidate.parent is not None:
            assert candidate.parent in living
            ranks.append(sorted(living, key=losses.__getitem__).index(candidate.parent))
        losses[number] = loss(candidate)
        strategy.tell(candidate, losses[number])
    # Best of 4 among 10 without repetition: the three worst never win, the best wins 40 %.
    assert max(ranks) <= 6
    assert 0.3 < ranks.count(0) / len(ranks) < 0.5


def test_a_tournament_of_all_is_won_by_the_best_alive() -> None:
    strategy = Evolution(ADDITIVE, 200, population=12, tournament=12)
    losses: dict[int, float] = {}
    for number in range(200):
        best = min(strategy.population, key=losses.__getitem__, default=None)
        candidate = strategy.ask()
        assert candidate.parent == (best if number >= 12 else None)
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
    candidates = run(Evolution(ADDITIVE, 2000, share=1.0), 2000)
    for child in candidates[64:]:
        assert child.parent is not None
        sizes.append((child.latent - candidates[child.parent].latent).std())
    start, end = np.mean(sizes[:50]), np.mean(sizes[-50:])
    assert end / start == pytest.approx(0.2 / 0.96, rel=0.15)


def test_evolution_beats_random_search_on_a_bowl() -> None:
    best = {
        make: np.median([min(map(loss, run(make(ADDITIVE, 400, s), 400))) for s in range(5)])
        for make in (Evolution, RandomSearch)
    }
    assert best[Evolution] < 0.7 * best[RandomSearch]


@pytest.mark.parametrize("make", [Evolution, RandomSearch])
@given(seed=st.integers(0, 1000), stop=st.integers(0, 119))
def test_a_replay_goes_on_like_the_unbroken_run(make: type, seed: int, stop: int) -> None:
    whole = run(make(ADDITIVE, 120, seed), 120)
    resumed = make(ADDITIVE, 120, seed)
    for candidate in whole[:stop]:
        resumed.tell(candidate, loss(candidate))
    assert latents(run(resumed, 120 - stop)) == latents(whole[stop:])


@pytest.mark.parametrize("make", [Evolution, RandomSearch])
def test_same_seed_same_run_other_seed_another(make: type) -> None:
    runs = [latents(run(make(ADDITIVE, 100, seed), 100)) for seed in (5, 5, 6)]
    assert runs[0] == runs[1]
    assert all(a != b for a, b in zip(runs[0][1:], runs[2][1:], strict=True))


def test_candidates_can_be_asked_ahead_of_losses() -> None:
    strategy = Evolution(ADDITIVE, 400, population=4, tournament=2)
    ahead = [strategy.ask() for _ in range(6)]
    assert [candidate.origin for candidate in ahead[4:]] == ["draw", "draw"]
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
            assert candidate.parent is not None
            assert candidate.parent % 3 == 1
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
    with pytest.raises(InputError, match=r"unknown strategy 'cma'.*auto, evolution, random"):
        choose_strategy("cma", ranker, 10, 0)


@pytest.mark.parametrize(
    "bad",
    [{"population": 0}, {"tournament": 0}, {"tournament": 65}, {"share": 1.5}, {"trials": 0}],
)
def test_senseless_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Evolution(ADDITIVE, **{"trials": 10, **bad})  # type: ignore[arg-type]
