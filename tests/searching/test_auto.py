"""The search over widths that begins with probes."""

import statistics
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprune.errors import InputError
from lcprune.ranking import Ranker
from lcprune.searching import Auto, Candidate, Evolution, RandomSearch, Strategy
from lcprune.searching._strategy import PROBE
from searching.spaces import Convex, chain_ranker

RANKER = chain_ranker([12, 16, 8, 20, 12, 16])
LOSS = Convex(RANKER)

Run = list[tuple[Candidate, float]]


def run(strategy: Strategy, trials: int, loss: Callable[[Candidate], float] = LOSS) -> Run:
    told = []
    for _ in range(trials):
        candidate = strategy.ask()
        told.append((candidate, loss(candidate)))
        strategy.tell(*told[-1])
    return told


def best(told: Run) -> float:
    return min(loss for candidate, loss in told if candidate.origin != PROBE)


def test_its_order_is_identity_one_width_rounds_of_probes_and_an_allocation_moves() -> None:
    origins = [candidate.origin for candidate, _ in run(Auto(RANKER, 100), 40)]
    assert origins[:2] == ["identity", "uniform"]
    assert origins[2:26] == 3 * [*[PROBE] * 7, "allocation"]
    assert set(origins[26:]) == {"child"}


def test_a_round_probes_some_widths_and_each_family_narrower() -> None:
    told = run(Auto(RANKER, 100), 26)
    full = RANKER.widths.full
    for start in (2, 10, 18):
        seen = [(loss, RANKER.kept(c.latent)) for c, loss in told[:start] if c.origin != PROBE]
        best = min(seen, key=lambda pair: pair[0])[1]
        base, *probes = [RANKER.probed(c.latent) for c, _ in told[start : start + 7]]
        if start == 2:  # halfway from the best widths to the whole network
            assert np.abs(base / best - full / base).max() < 2 / best.min()
        else:
            assert base.tolist() == best.tolist()
        for family, probe in enumerate(probes):
            assert np.flatnonzero(probe < base).tolist() == [family]
            assert (probe <= base).all()


def test_an_allocation_that_failed_is_followed_by_one_nearer_by() -> None:
    """Where no allocation helps, each of the next ones goes half as far from the best widths."""

    def loss(candidate: Candidate) -> float:
        """Says that the first family matters most, and takes it back at each allocation."""
        if candidate.origin != PROBE:
            return 0.0 if candidate.origin == "uniform" else 1.0
        return float(1 - RANKER.probed(candidate.latent)[0] / RANKER.widths.full[0])

    told = run(Auto(RANKER, 100), 26, loss)
    uniform = RANKER.kept(told[1][0].latent)
    found = [RANKER.kept(c.latent) for c, _ in told if c.origin == "allocation"]
    moved = [float(np.abs(np.log(widths / uniform)).sum()) for widths in found]
    assert moved[0] > moved[1] > moved[2] > 0


def allocations(loss: Callable[[Candidate], float]) -> list[list[int]]:
    told = run(Auto(RANKER, 100), 26, loss)
    return [RANKER.kept(c.latent).tolist() for c, _ in told if c.origin == "allocation"]


def test_an_allocation_goes_by_differences_within_a_round() -> None:
    def probes_higher(candidate: Candidate) -> float:
        return LOSS(candidate) + (10 if candidate.origin == PROBE else 0)

    assert allocations(probes_higher) == allocations(LOSS)


def test_what_earlier_rounds_said_of_a_family_still_counts() -> None:
    def loss(of_the_first: float) -> Callable[[Candidate], float]:
        """Every family costs 1, but the first family in the first round."""

        def by_number(candidate: Candidate) -> float:
            if candidate.origin != PROBE:
                return 0.0 if candidate.origin == "uniform" else 1.0
            if candidate.number == 3:
                return of_the_first
            return 0.0 if candidate.number in (2, 10, 18) else 1.0

        return by_number

    # The third, after two that failed, reaches too near for a family of 12 to be wider.
    (first, second, _), (dear_first, dear_second, _) = map(allocations, (loss(1.0), loss(50.0)))
    assert dear_first[0] > first[0]
    assert dear_second[0] > second[0]


@pytest.mark.parametrize("trials", [1, 3, 10, 30])
def test_few_trials_have_few_probes(trials: int) -> None:
    told = run(Auto(RANKER, trials), trials)
    assert sum(candidate.origin == PROBE for candidate, _ in told) <= trials // 4
    assert [candidate.number for candidate, _ in told] == list(range(trials))


@pytest.mark.parametrize("compensation", ["additive", "additive:rank", "affine"])
def test_no_plan_within_the_budget_is_tried_twice(compensation: str) -> None:
    ranker = chain_ranker([12, 16, 8, 20, 12, 16], compensation=compensation)
    told = run(Auto(ranker, 150), 150, Convex(ranker))
    digests = [
        ranker.plan(candidate.latent).digest
        for candidate, _ in told
        if candidate.origin not in (PROBE, "identity", "uniform", "allocation")
    ]
    assert len(set(digests)) == len(digests) == 150 - 26


def test_it_needs_a_quarter_of_evolutions_trials() -> None:
    """Over several losses of widths, the median of the ratios to what evolution finds in all."""
    ratios = []
    for seed in range(5):
        ranker = chain_ranker([12, 16, 8, 20, 12, 16, 24, 12], seed=seed)
        loss = Convex(ranker, seed)
        evolution = best(run(Evolution(ranker.compensation, 200, seed), 200, loss))
        random = best(run(RandomSearch(ranker.compensation, 200, seed), 200, loss))
        ratios.append(best(run(Auto(ranker, 200, seed), 50, loss)) / min(evolution, random))
    assert statistics.median(ratios) < 1


def test_an_allocation_from_probes_is_better_than_one_width() -> None:
    gains = []
    for seed in range(6):
        ranker = chain_ranker([16] * 8, seed=seed)
        told = run(Auto(ranker, 100, seed), 20, Convex(ranker, seed))
        loss = {candidate.origin: loss for candidate, loss in told}
        gains.append(loss["uniform"] - loss["allocation"])
    assert statistics.median(gains) > 0
    assert sum(gain > 0 for gain in gains) >= 5


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), stop=st.integers(0, 59))
def test_a_replay_goes_on_like_the_unbroken_run(seed: int, stop: int) -> None:
    whole = run(Auto(RANKER, 60, seed), 60)
    resumed = Auto(RANKER, 60, seed)
    for candidate, loss in whole[:stop]:
        resumed.tell(candidate, loss)
    rest = run(resumed, 60 - stop)
    for (candidate, _), (expected, _) in zip(rest, whole[stop:], strict=True):
        assert candidate.origin == expected.origin
        assert candidate.latent.tolist() == expected.latent.tolist()


def test_same_seed_same_run_other_seed_another() -> None:
    runs = [
        [candidate.latent.tolist() for candidate, _ in run(Auto(RANKER, 60, seed), 60)]
        for seed in (5, 5, 6)
    ]
    assert runs[0] == runs[1]
    assert runs[0][:18] == runs[2][:18]  # nothing is drawn before the moves
    assert runs[0][18:] != runs[2][18:]


def test_candidates_can_be_asked_ahead_of_losses() -> None:
    strategy = Auto(RANKER, 60)
    ahead = [strategy.ask() for _ in range(30)]
    for candidate in reversed(ahead):
        strategy.tell(candidate, LOSS(candidate))
    assert strategy.ask().number == 30


@pytest.mark.parametrize("every", [1, 3])
def test_losses_that_are_not_finite_are_no_parents(every: int) -> None:
    def loss(candidate: Candidate) -> float:
        return np.inf if candidate.number % every == 0 else LOSS(candidate)

    told = run(Auto(RANKER, 80), 80, loss)
    if every > 1:
        assert best(told) < LOSS(told[1][0])


@pytest.mark.parametrize("sizes", [[12], [2, 2], [1, 6]])
def test_small_networks(sizes: list[int]) -> None:
    ranker: Ranker = chain_ranker(sizes, 0.6)
    told = run(Auto(ranker, 30), 30, Convex(ranker))
    assert len(told) == 30


@pytest.mark.parametrize("bad", [{"trials": 0}, {"probed": 1.0}, {"probed": -0.1}, {"elite": 0}])
def test_senseless_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Auto(RANKER, **{"trials": 10, **bad})  # type: ignore[arg-type]
