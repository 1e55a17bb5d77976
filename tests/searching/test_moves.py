"""Moves between widths that fit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.searching._moves import Moves
from lcprune.tracing._graph import IntArray
from searching.spaces import chain_ranker

Move = Callable[[Moves, IntArray, float, np.random.Generator], IntArray]
SIZES = st.lists(st.integers(1, 24), min_size=1, max_size=7)


def moves_of(sizes: list[int], macs: float, round_to: int) -> Moves | None:
    ranker = chain_ranker(sizes, macs, round_to=round_to)
    least = np.array([rungs[0] for rungs in ranker.widths.rungs])
    return Moves(ranker.widths) if ranker.widths.fit(least) else None


@pytest.mark.parametrize("move", [Moves.exchanged, Moves.shifted])
@given(
    sizes=SIZES,
    macs=st.sampled_from([0.3, 0.6]),
    round_to=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 99),
)
def test_children_fit_and_are_maximal(
    move: Move, sizes: list[int], macs: float, round_to: int, seed: int
) -> None:
    moves = moves_of(sizes, macs, round_to)
    if moves is None:
        return
    generator = np.random.default_rng(seed)
    parent = moves.uniform()
    for _ in range(8):
        child = move(moves, parent, 0.3, generator)
        assert moves._widths.fit(moves.widths(child))
        assert (child >= 0).all()
        assert (child <= moves.top).all()
        for family in np.flatnonzero(child < moves.top):
            wider = child.copy()
            wider[family] += 1
            assert not moves._widths.fit(moves.widths(wider))


@given(SIZES, st.integers(0, 99))
def test_levels_are_those_of_their_widths(sizes: list[int], seed: int) -> None:
    moves = Moves(chain_ranker(sizes, 0.6, round_to=2).widths)
    levels = np.random.default_rng(seed).integers(0, moves.top + 1)
    assert moves.levels(moves.widths(levels)).tolist() == levels.tolist()


def test_one_width_for_all_is_about_one_share() -> None:
    moves = moves_of([40, 40, 40, 40], 0.5, 1)
    assert moves is not None
    shares = moves.widths(moves.uniform()) / 40
    # Two of three layers lie between two others: their cost falls with the square.
    assert shares.max() - shares.min() < 0.1
    assert 0.6 < shares.mean() < 0.75


@pytest.mark.parametrize("step", [0.02, 0.3])
def test_a_step_is_about_how_far_a_family_moves(step: float) -> None:
    moves = moves_of([200] * 6, 0.5, 1)
    assert moves is not None
    parent, generator = moves.uniform(), np.random.default_rng(0)
    children = np.stack([moves.exchanged(parent, step, generator) for _ in range(200)])
    lost = np.maximum(parent - children, 0)
    typical = np.median(lost[lost > 0]) / moves.top[0]
    assert 0.4 * step < typical < step
    assert 1 <= (lost > 0).sum(axis=1).min() <= (lost > 0).sum(axis=1).max() == 3


def test_a_shift_moves_all_others_by_one_share_the_other_way() -> None:
    moves = moves_of([200] * 6, 0.5, 1)
    assert moves is not None
    parent, generator = moves.uniform(), np.random.default_rng(0)
    for _ in range(50):
        change = moves.shifted(parent, 0.2, generator) - parent
        values, counts = np.unique(change // 4, return_counts=True)
        rest = 4 * values[counts.argmax()]
        # What still fitted goes on top of it.
        alike = np.abs(change - rest) <= 16
        assert 4 <= alike.sum() <= 6
        assert change.max() >= 0 >= change.min()


@pytest.mark.parametrize("move", [Moves.exchanged, Moves.shifted])
def test_with_one_family_there_is_nothing_to_exchange(move: Move) -> None:
    moves = moves_of([12], 0.5, 1)
    assert moves is not None
    parent = moves.uniform()
    assert move(moves, parent, 0.3, np.random.default_rng(0)).tolist() == parent.tolist()
