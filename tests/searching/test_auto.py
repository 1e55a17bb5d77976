"""The search over widths that begins with probes."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lcprune.errors import InputError
from lcprune.searching import Auto, Candidate, Evolution, RandomSearch
from lcprune.searching._surrogate import Surrogate, Told
from searching.spaces import Convex, Run, chain_ranker, drive

SIZES = [12, 16, 8, 20, 12, 16]
RANKER = chain_ranker(SIZES)
LOSS = Convex(RANKER)


@cache
def whole() -> Run:
    """The first trials of a search of a hundred."""
    return drive(Auto(RANKER, 100), 20, LOSS)


def best(told: Run) -> float:
    return min(loss for candidate, loss in told if candidate.final)


def widths(candidate: Candidate) -> np.ndarray:
    return RANKER.widths.of(candidate.keep)


def test_its_order_is_identity_one_width_probes_an_allocation_and_moves() -> None:
    origins = [candidate.note["origin"] for candidate, _ in whole()]
    assert origins == ["identity", "uniform", *["probe"] * 7, "allocation", *["child"] * 10]
    assert [not candidate.final for candidate, _ in whole()] == [o == "probe" for o in origins]
    shares = [candidate.share for candidate, _ in whole()]
    assert shares == [0.25 if origin == "probe" else 1.0 for origin in origins]
    assert [c.number for c, _ in whole() if c.reference] == [1]


def test_probes_are_halfway_to_the_whole_and_each_family_narrower_from_there() -> None:
    told = whole()[:10]
    full = RANKER.widths.full
    best = widths(min(told[:2], key=lambda pair: pair[1])[0])
    base, *probes = [widths(candidate) for candidate, _ in told[2:9]]
    assert np.abs(base / best - full / base).max() < 2 / best.min()
    for family, probe in enumerate(probes):
        assert np.flatnonzero(probe < base).tolist() == [family]
        assert (probe <= base).all()


def allocation(loss: Callable[[Candidate], float]) -> list[int]:
    return widths(drive(Auto(RANKER, 100), 10, loss)[9][0]).tolist()


def test_an_allocation_goes_by_differences_within_a_round() -> None:
    def probes_higher(candidate: Candidate) -> float:
        return LOSS(candidate) + (0 if candidate.final else 10)

    assert allocation(probes_higher) == allocation(LOSS) == widths(whole()[9][0]).tolist()


@pytest.mark.parametrize("family", range(len(SIZES)))
def test_a_family_that_a_probe_finds_dear_is_allocated_more(family: int) -> None:
    def probe_costs(more: float) -> Callable[[Candidate], float]:
        return lambda candidate: LOSS(candidate) + more * (candidate.number == 3 + family)

    cheap, dear = (allocation(probe_costs(more))[family] for more in (-10, 10))
    assert cheap < dear


def test_probes_and_allocation_go_by_the_base_that_was_tried() -> None:
    """As it is in the journal, whatever would be asked for now."""
    for lower in (0, 1):
        strategy = Auto(RANKER, 100)
        for candidate, loss in whole()[:2]:
            strategy.tell(candidate, loss)
        base = widths(whole()[2][0])
        base[1] = RANKER.widths.rungs[1][list(RANKER.widths.rungs[1]).index(base[1]) - lower]
        keep = RANKER.at_least_0(RANKER.widths.latent(base))
        strategy.tell(replace(whole()[2][0], keep=keep), whole()[2][1])
        for family in range(len(SIZES)):
            probe = strategy.ask()
            assert np.flatnonzero(widths(probe) != base).tolist() == [family]
            strategy.tell(probe, whole()[2][1] + (10.0 if family == 4 else 0.1))
        assert widths(strategy.ask())[4] > widths(whole()[9][0])[4]


def test_a_probe_of_two_families_says_nothing_of_either() -> None:
    both = widths(whole()[7][0])
    both[5] = RANKER.widths.rungs[5][0]
    keep = RANKER.at_least_0(RANKER.widths.latent(both))
    found = []
    for loss in (np.inf, 1e3):
        strategy = Auto(RANKER, 100)
        for candidate, loss_told in whole()[:8]:
            strategy.tell(candidate, loss_told)
        strategy.tell(replace(whole()[8][0], keep=keep), loss)
        found.append(widths(strategy.ask()).tolist())
    assert found[0] == found[1]


def test_moves_are_to_beat_plans_not_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def improvements(_: Surrogate, told: Told, proposals: np.ndarray) -> np.ndarray:
        asked.append((told, proposals))
        return np.zeros(len(proposals))

    monkeypatch.setattr(Surrogate, "improvements", improvements)
    told = drive(Auto(RANKER, 100), 11, LOSS)
    known, proposals = asked[0]
    assert known.probes.tolist() == [not candidate.final for candidate, _ in told[:10]]
    assert known.losses.tolist() == [loss for _, loss in told[:10]]
    assert not known.trained.any()
    assert RANKER.widths.fit(known.widths[~known.probes]).all()
    assert RANKER.widths.fit(proposals).all()


def test_what_probes_said_counts_in_the_moves_too() -> None:
    children = []
    for last in (1.0, 4.0):
        strategy = Auto(RANKER, 100)
        for candidate, loss in whole():
            assert candidate.final or candidate.number <= 8
            strategy.tell(candidate, last * loss if candidate.number == 8 else loss)
        children.append(strategy.ask().keep.tolist())
    assert children[0] != children[1]


@pytest.mark.parametrize(("trials", "probes"), [(1, 0), (10, 0), (27, 0), (28, 7)])
def test_few_trials_have_few_probes(trials: int, probes: int) -> None:
    told = drive(Auto(RANKER, trials), min(trials, 10), LOSS)
    assert sum(not candidate.final for candidate, _ in told) == probes <= trials // 4


def check_distinct(compensation: str, trials: int) -> None:
    ranker = chain_ranker(SIZES, compensation=compensation)
    told = drive(Auto(ranker, 150), trials, Convex(ranker))
    keeps = [candidate.keep.tobytes() for candidate, _ in told[10:]]
    assert len(set(keeps)) == len(keeps) == trials - 10


def test_no_plan_within_the_budget_is_tried_twice() -> None:
    check_distinct("additive", 40)


@pytest.mark.thorough
@pytest.mark.parametrize("compensation", ["additive", "additive:rank", "affine"])
def test_nor_is_one_in_a_long_search(compensation: str) -> None:
    check_distinct(compensation, 150)


@pytest.mark.thorough
def test_it_needs_a_quarter_of_evolutions_trials() -> None:
    """Over several losses of widths, the median of the ratios to what evolution finds in all."""
    ratios = []
    for seed in range(5):
        ranker = chain_ranker([12, 16, 8, 20, 12, 16, 24, 12], seed=seed)
        loss = Convex(ranker, seed)
        evolution = best(drive(Evolution(ranker, 200, seed), 200, loss))
        random = best(drive(RandomSearch(ranker, 200, seed), 200, loss))
        ratios.append(best(drive(Auto(ranker, 200, seed), 50, loss)) / min(evolution, random))
    assert statistics.median(ratios) < 1


def test_an_allocation_from_probes_is_better_than_one_width() -> None:
    gains = []
    for seed in range(6):
        ranker = chain_ranker([16] * 8, seed=seed)
        told = drive(Auto(ranker, 100, seed), 12, Convex(ranker, seed))
        loss = {candidate.note["origin"]: loss for candidate, loss in told}
        gains.append(loss["uniform"] - loss["allocation"])
    assert statistics.median(gains) > 0
    assert sum(gain > 0 for gain in gains) >= 5


def test_the_first_steps_draw_nothing() -> None:
    first, other = (drive(Auto(RANKER, 100, seed), 11, LOSS) for seed in (0, 1))
    keeps = [[candidate.keep.tolist() for candidate, _ in run] for run in (first, other)]
    assert keeps[0][:10] == keeps[1][:10]
    assert keeps[0][10] != keeps[1][10]


def test_losses_that_are_not_finite_are_no_parents() -> None:
    def loss(candidate: Candidate) -> float:
        return np.inf if candidate.number % 3 == 0 else LOSS(candidate)

    told = drive(Auto(RANKER, 80), 30, loss)
    assert best(told) < LOSS(told[1][0])


@pytest.mark.parametrize("bad", [{"trials": 0}, {"probed": 1.0}, {"probed": -0.1}, {"elite": 0}])
def test_senseless_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Auto(RANKER, **{"trials": 10, **bad})  # type: ignore[arg-type]


TRAINED = Convex(RANKER, seed=5)


def after_training(candidate: Candidate) -> float:
    """Another loss than without, which says something of it."""
    return TRAINED(candidate) + 0.3 * LOSS(candidate) if candidate.steps else LOSS(candidate)


@cache
def trained() -> Run:
    return drive(Auto(RANKER, 60, steps=20, price=5), 60, after_training)


def test_what_is_known_is_trained_first() -> None:
    origins = [(candidate.note["origin"], candidate.steps) for candidate, _ in trained()]
    cheap = ["identity", "uniform", *["probe"] * 7, "allocation"]
    dear = ["identity", "uniform", "allocation"]
    assert origins[:13] == [*((o, 0) for o in cheap), *((o, 20) for o in dear)]
    for position, again in zip((0, 1, 9), (10, 11, 12), strict=True):
        assert np.array_equal(trained()[position][0].keep, trained()[again][0].keep)


def test_then_each_move_is_measured_as_is_worth_it() -> None:
    moves = [candidate for candidate, _ in trained()[13:]]
    steps = [candidate.steps for candidate in moves]
    assert {0, 20} == set(steps)
    assert steps[-1] == 20
    measured = [(c.keep.tobytes(), c.steps) for c in moves]
    assert len(set(measured)) == len(measured)


def test_the_dearer_training_is_the_fewer_are_trained() -> None:
    counts = [
        sum(
            c.steps > 0
            for c, _ in drive(Auto(RANKER, 60, steps=20, price=price), 60, after_training)
        )
        for price in (1.0, 100.0)
    ]
    assert counts[0] > counts[1]


def test_with_training_it_finds_what_is_good_after_training() -> None:
    """Better than one that looks at losses before it, of which the best are then trained."""
    cheap = drive(Auto(RANKER, 60), 60, LOSS)
    best = sorted((pair for pair in cheap if pair[0].final), key=lambda pair: pair[1])[:10]
    found = min(after_training(replace(candidate, steps=20)) for candidate, _ in best)
    assert min(loss for candidate, loss in trained() if candidate.steps) < found


def test_trained_losses_that_are_not_finite_are_survived() -> None:
    told = drive(Auto(RANKER, 40, steps=5), 40, lambda c: float("inf") if c.steps else LOSS(c))
    assert len(told) == 40
