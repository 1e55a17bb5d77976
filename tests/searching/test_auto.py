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
from lcprune.searching._surrogate import Surrogate
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


def test_its_order_is_identity_one_width_probes_an_allocation_and_moves() -> None:
    origins = [candidate.origin for candidate, _ in run(Auto(RANKER, 100), 40)]
    assert origins[:10] == ["identity", "uniform", *[PROBE] * 7, "allocation"]
    assert set(origins[10:]) == {"child"}


def test_probes_are_halfway_to_the_whole_and_each_family_narrower_from_there() -> None:
    told = run(Auto(RANKER, 100), 10)
    full = RANKER.widths.full
    best = RANKER.kept(min(told[:2], key=lambda pair: pair[1])[0].latent)
    base, *probes = [RANKER.probed(candidate.latent) for candidate, _ in told[2:9]]
    assert np.abs(base / best - full / base).max() < 2 / best.min()
    for family, probe in enumerate(probes):
        assert np.flatnonzero(probe < base).tolist() == [family]
        assert (probe <= base).all()


def allocations(loss: Callable[[Candidate], float]) -> list[list[int]]:
    told = run(Auto(RANKER, 100), 10, loss)
    return [RANKER.kept(c.latent).tolist() for c, _ in told if c.origin == "allocation"]


def test_an_allocation_goes_by_differences_within_a_round() -> None:
    def probes_higher(candidate: Candidate) -> float:
        return LOSS(candidate) + (10 if candidate.origin == PROBE else 0)

    assert allocations(probes_higher) == allocations(LOSS)


def test_a_probe_of_two_families_says_nothing_of_either() -> None:
    told = run(Auto(RANKER, 100), 9)
    widths = RANKER.widths
    both = RANKER.probed(told[7][0].latent)
    both[5] = widths.rungs[5][0]
    found = []
    for loss in (np.inf, 1e3):
        strategy = Auto(RANKER, 100)
        for candidate, loss_told in told[:8]:
            strategy.tell(candidate, loss_told)
        strategy.tell(Candidate(8, widths.latent(both), PROBE), loss)
        found.append(RANKER.kept(strategy.ask().latent).tolist())
    assert found[0] == found[1]


def test_moves_are_to_beat_plans_not_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def improvements(_: Surrogate, *known: np.ndarray) -> np.ndarray:
        asked.append(known)
        return np.zeros(len(known[-1]))

    monkeypatch.setattr(Surrogate, "improvements", improvements)
    told = run(Auto(RANKER, 100), 11)
    tried, losses, probes, proposals = asked[0]
    assert probes.tolist() == [candidate.origin == PROBE for candidate, _ in told[:10]]
    assert losses.tolist() == [loss for _, loss in told[:10]]
    assert RANKER.widths.fit(tried[~probes]).all()
    assert RANKER.widths.fit(proposals).all()


def test_what_probes_said_counts_in_the_moves_too() -> None:
    told = run(Auto(RANKER, 100), 20)
    children = []
    for last in (1.0, 4.0):
        strategy = Auto(RANKER, 100)
        for candidate, loss in told:
            changed = candidate.origin == PROBE and candidate.number == 8
            strategy.tell(candidate, last * loss if changed else loss)
        children.append(strategy.ask().latent.tolist())
    assert children[0] != children[1]


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
    assert len(set(digests)) == len(digests) == 150 - 10


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
    assert runs[0][:10] == runs[2][:10]  # nothing is drawn before the moves
    assert runs[0][10:] != runs[2][10:]


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
