"""Moves between widths that fit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphs import Steps, steps
from lcprune.ranking import RoundTo
from lcprune.searching._auto import Moves
from searching.spaces import chain_ranker

SIZES = st.lists(st.integers(1, 24), min_size=1, max_size=7)


def moves_of(
    sizes: list[int], macs: float, round_to: RoundTo, table: Steps | None = None
) -> Moves | None:
    ranker = chain_ranker(sizes, macs, round_to=round_to, resources=[table] if table else [])
    least = np.array([rungs[0] for rungs in ranker.widths.rungs])
    return Moves(ranker.widths) if ranker.widths.fit(least) else None


@given(
    sizes=SIZES,
    macs=st.sampled_from([0.3, 0.6]),
    round_to=st.sampled_from([1, 2, 4, "auto"]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_proposals_fit_and_are_maximal_once_filled(
    sizes: list[int], macs: float, round_to: RoundTo, seed: int, data: st.DataObject
) -> None:
    moves = moves_of(sizes, macs, round_to, data.draw(steps(sizes)))
    if moves is None:
        return
    generator = np.random.default_rng(seed)
    proposals = moves.around(np.tile(moves.uniform(), (16, 1)), generator)
    assert moves.space.fit(moves.widths(proposals)).all()
    assert (proposals >= 0).all()
    assert (proposals <= moves.top).all()
    for proposal in proposals:
        child = moves.filled(proposal, generator.permutation(len(sizes)))
        assert (child >= proposal).all()
        assert moves.space.fit(moves.widths(child))
        for family in np.flatnonzero(child < moves.top):
            wider = child.copy()
            wider[family] += 1
            assert not moves.space.fit(moves.widths(wider))


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


def test_one_width_for_all_is_one_share_of_widths_where_steps_are_unequal() -> None:
    # By levels the last family, most of whose widths are narrow ones, would be a third.
    fine = tuple(range(4, 41))
    table = Steps((fine, fine, fine, (*range(1, 20), 26, 40)))
    moves = moves_of([40, 40, 40, 40], 0.5, "auto", table)
    assert moves is not None
    widths = moves.widths(moves.uniform())
    assert widths[3] == 26
    assert abs(widths[:3] - 28).max() <= 2


def test_a_few_families_move_and_all_others_by_one_share_the_other_way() -> None:
    moves = moves_of([200] * 9, 0.5, 1)
    assert moves is not None
    parent = moves.uniform()
    changes = moves.around(np.tile(parent, (400, 1)), np.random.default_rng(0)) - parent
    moved_counts = set()
    for change in changes:
        values, counts = np.unique(change, return_counts=True)
        rest = values[counts.argmax()]
        moved = change[change != rest]
        moved_counts.add(len(moved))
        # What is beyond the ends is cut off, so only those that all went one way say something.
        if len(moved) and (np.sign(moved) == np.sign(moved[0])).all():
            assert rest * moved[0] <= 0
    assert moved_counts == {1, 2, 3, 4, 5, 6}


def test_steps_are_small_and_large() -> None:
    moves = moves_of([200] * 9, 0.5, 1)
    assert moves is not None
    parent = moves.uniform()
    changes = moves.around(np.tile(parent, (400, 1)), np.random.default_rng(0)) - parent
    largest = np.abs(changes).max(axis=1) / moves.top[0]
    assert np.quantile(largest, 0.1) < 0.12
    assert np.quantile(largest, 0.9) > 0.4


def test_each_start_has_at_most_one_proposal_near_it() -> None:
    moves = moves_of([200] * 6, 0.5, 1)
    assert moves is not None
    narrow, wide = moves.uniform() - 60, moves.uniform()
    proposals = moves.around(np.stack([narrow, wide]), np.random.default_rng(0))
    assert len(proposals) <= 2


def test_with_one_family_there_is_nothing_to_exchange() -> None:
    moves = moves_of([12], 0.5, 1)
    assert moves is not None
    parent = moves.uniform()[None]
    assert moves.around(parent, np.random.default_rng(0)).tolist() == parent.tolist()
