"""What a few probes say: curves of families, and an allocation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.graph import IntArray
from lcprune.ranking import Widths
from lcprune.searching._auto import Curves, Moves, allocate, halfway, narrower_by_one
from searching.spaces import chain_ranker

FULL = np.array([16, 32, 8])
AROUND = np.array([12, 20, 8])


def allocated(space: Widths, near: IntArray, curves: Curves) -> IntArray:
    """An allocation in widths."""
    moves = Moves(space)
    return moves.widths(allocate(moves, near, curves))


def square(factor: float, width: float, full: float) -> float:
    return factor * (1 - width / full) ** 2


@given(st.floats(1e-2, 1e2), st.integers(1, 11))
def test_a_probe_gives_its_square_law_back(factor: float, width: int) -> None:
    measured = square(factor, width, 16) - square(factor, 12, 16)
    curves = Curves.around(AROUND, [(0, width, measured)], FULL)
    widths = np.tile(FULL, (16, 1))
    widths[:, 0] = np.arange(1, 17)
    expected = [square(factor, w, 16) for w in range(1, 17)]
    assert curves.excess(widths)[:, 0] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_families_without_probes_are_like_the_median() -> None:
    curves = Curves.around(FULL, [(0, 8, 1.0)], FULL)
    assert curves.excess(FULL // 2).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert curves.excess(FULL).tolist() == [0, 0, 0]
    assert (Curves.around(FULL, [], FULL).excess(FULL // 2) > 0).all()


@pytest.mark.parametrize("excess", [0.0, -0.5, np.inf, np.nan])
def test_probes_that_lose_nothing_still_give_rising_curves(excess: float) -> None:
    probes = [(family, int(AROUND[family]) - 2, excess) for family in range(3)]
    for told in (probes, [*probes[:2], (2, 6, 1.0)]):
        curves = Curves.around(AROUND, told, FULL)
        at = curves.excess(np.array([[12, 24, 6], [8, 16, 4]]))
        assert np.isfinite(at).all()
        assert (at[1] > at[0]).all()


@pytest.mark.parametrize("round_to", [1, 4])
def test_halfway_is_as_far_from_the_target_as_from_the_whole(round_to: int) -> None:
    space = chain_ranker([16, 64, 8], 0.3, round_to=round_to).widths
    target = np.array([4, 16, 8])
    between = halfway(space, target)
    assert between.tolist() == [8, 32, 8]
    assert all(width in rungs for width, rungs in zip(between, space.rungs, strict=True))


def test_a_probe_of_what_could_not_be_narrowed_says_nothing() -> None:
    curves = Curves.around(AROUND, [(0, 12, 0.0), (1, 16, 1.0)], FULL)
    assert curves.excess(FULL // 2)[0] == curves.excess(FULL // 2)[1]


@pytest.mark.parametrize("round_to", [1, 4])
def test_a_probe_is_one_family_about_a_fifth_narrower(round_to: int) -> None:
    space = chain_ranker([16, 40, 8], 0.49, round_to=round_to).widths
    for family in range(3):
        probe = narrower_by_one(space, space.full, family)
        (changed,) = np.flatnonzero(probe != space.full)
        assert changed == family
        assert probe[family] in space.rungs[family]
        assert abs(probe[family] - 0.8 * space.full[family]) < max(1, round_to / 2 + 0.5)


def test_what_is_at_its_floor_stays() -> None:
    space = chain_ranker([16, 1, 16], 0.5).widths
    assert narrower_by_one(space, space.full, 1).tolist() == space.full.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_allocations_come_near_the_best_of_all(seed: int) -> None:
    """Whatever the power, since each round takes the slopes where the last one ended."""
    space = chain_ranker([8, 8, 8], 0.5).widths
    generator = np.random.default_rng(seed)
    factors, powers = np.exp(generator.normal(0, 1, 3)), generator.uniform(1, 3, 3)

    def excess(widths: np.ndarray) -> np.ndarray:
        return np.asarray((factors * (1 - widths / 8) ** powers).sum(axis=-1))

    every = np.array(list(itertools.product(range(1, 9), repeat=3)))
    fitting = excess(every)[space.fit(every)]
    best = np.array([5, 5, 5])
    assert space.fit(best)
    for _ in range(4):
        probes = [narrower_by_one(space, best, family) for family in range(3)]
        measured = [
            (i, int(probe[i]), float(excess(probe) - excess(best)))
            for i, probe in enumerate(probes)
        ]
        found = allocated(space, best, Curves.around(best, measured, space.full))
        assert space.fit(found)
        best = min(best, found, key=excess)
    assert excess(best) < np.quantile(fitting, 0.1)


@given(st.integers(0, 99))
def test_an_allocation_stays_near_what_was_probed(seed: int) -> None:
    space = chain_ranker([40, 40, 40, 40], 0.4).widths
    around = np.array([22, 25, 25, 22])
    assert space.fit(around)
    generator = np.random.default_rng(seed)
    probes = [(i, int(around[i]) - 4, float(generator.exponential())) for i in range(4)]
    curves = Curves.around(around, probes, space.full)
    found = allocated(space, around, curves)
    assert space.fit(found)
    assert (np.floor(0.6 * around) <= found).all()
    assert (found <= 1.5 * around).all()


def test_an_allocation_stops_at_the_floors() -> None:
    space = chain_ranker([10, 10], 0.012, min_keep=0.1).widths
    floors = np.array([1, 1])
    assert allocated(space, floors, Curves.around(floors, [], space.full)).tolist() == [1, 1]
