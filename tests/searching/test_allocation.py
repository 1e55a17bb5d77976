"""What a few probes say: curves of families, and an allocation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.searching._allocation import allocate, probe_widths
from lcprune.searching._curves import Curves
from searching.spaces import chain_ranker

FULL = np.array([16, 32, 8])


@given(st.floats(1e-2, 1e2), st.floats(1, 4))
def test_two_probes_give_a_power_law_back(factor: float, power: float) -> None:
    curves = Curves(FULL, [(0, w, factor * (1 - w / 16) ** power) for w in (12, 4)])
    removed = 1 - np.arange(1, 17) / 16
    widths = np.tile(FULL, (16, 1))
    widths[:, 0] = np.arange(1, 17)
    expected = factor * removed**power
    assert curves.excess(widths)[:, 0] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_families_without_probes_are_like_the_median() -> None:
    curves = Curves(FULL, [(0, 8, 1.0)])
    assert curves.excess(FULL // 2).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert curves.excess(FULL).tolist() == [0, 0, 0]
    assert (Curves(FULL).excess(FULL // 2) > 0).all()


@pytest.mark.parametrize("excess", [0.0, -0.5])
def test_probes_that_lose_nothing_still_give_rising_curves(excess: float) -> None:
    probes = [(family, width, excess) for family in range(3) for width in (4, 2)]
    # One network's loss was not a number.
    curves = Curves(FULL, [*probes, (1, 1, np.inf)])
    at = curves.excess(np.array([[12, 24, 6], [8, 16, 4]]))
    assert np.isfinite(at).all()
    assert (at[1] > at[0]).all()


def test_probes_are_the_whole_network_then_each_family_alone() -> None:
    space = chain_ranker([16, 40, 8], 0.49).widths
    probes = probe_widths(space, 100)
    assert len(probes) == 7
    assert probes[0].tolist() == [16, 40, 8]
    for place, probe in enumerate(probes[1:]):
        (family,) = np.flatnonzero(probe < space.full)
        assert family == place % 3
        share = probe[family] / space.full[family]
        assert share == pytest.approx(0.7 if place < 3 else 0.35, abs=0.07)
    assert len(probe_widths(space, 6)) == 4
    assert probe_widths(space, 3) == []


def test_what_cannot_be_narrowed_is_not_probed() -> None:
    space = chain_ranker([16, 1, 16], 0.5).widths
    assert {int(np.flatnonzero(p < space.full)[0]) for p in probe_widths(space, 99)[1:]} == {0, 2}


@pytest.mark.parametrize("seed", range(6))
def test_an_allocation_is_near_the_best_of_all(seed: int) -> None:
    space = chain_ranker([8, 8, 8], 0.5).widths
    generator = np.random.default_rng(seed)
    laws = [(np.exp(generator.normal(0, 1)), generator.uniform(1, 3)) for _ in range(3)]
    curves = Curves(
        space.full,
        [
            (family, width, factor * (1 - width / 8) ** power)
            for family, (factor, power) in enumerate(laws)
            for width in (6, 3)
        ],
    )
    found = allocate(space, curves)
    assert space.fit(found)
    every = np.array(list(itertools.product(range(1, 9), repeat=3)))
    losses = curves.excess(every).sum(axis=1)
    fitting = losses[space.fit(every)]
    assert curves.excess(found).sum() <= 1.3 * fitting.min()
    assert curves.excess(found).sum() < np.quantile(fitting, 0.05)


def test_an_allocation_stops_at_the_floors() -> None:
    space = chain_ranker([10, 10], 0.012, min_keep=0.1).widths
    assert allocate(space, Curves(space.full)).tolist() == [1, 1]
