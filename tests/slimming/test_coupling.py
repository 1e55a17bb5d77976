"""Couplings that are found without a model: a rule says which groups may go at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.slimming._coupling import BLOCKS, CHECKS, PARTNERS, PATIENCE, couplings, random_masks


class Rule:
    """Asks ``allows`` which groups may go at once, and counts how often."""

    def __init__(self, allows: Callable[[set[int]], bool]) -> None:
        self.allows = allows
        self.count = 0

    def __call__(self, removed: np.ndarray) -> bool:
        self.count += 1
        return self.allows(set(removed.tolist()))


def families(*sizes: int) -> list[np.ndarray]:
    return np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])


def search(culprits: list[list[np.ndarray]], rule: Rule) -> list[set[tuple[int, ...]]]:
    found = couplings(culprits, rule, np.random.default_rng(0))
    return [{tuple(sorted(cell)) for cell in cells.tolist()} for cells in found]


def test_two_families_of_equal_size_go_in_step_beside_one_that_nothing_helps() -> None:
    a, b, c = families(8, 8, 8)
    places = [{int(g): i for i, g in enumerate(f)} for f in (a, c)]

    def allows(removed: set[int]) -> bool:
        first, second = ({p[g] for g in removed if g in p} for p in places)
        return first == second and not removed & set(b.tolist())

    assert search([[a], [b], [c]], Rule(allows)) == [{(i, i + 16) for i in range(8)}]


def test_three_families_go_in_step_where_no_two_of_them_can() -> None:
    a, b, c = families(6, 6, 6)

    def allows(removed: set[int]) -> bool:
        parts = [{g % 6 for g in removed if g // 6 == part} for part in range(3)]
        return parts[0] == parts[1] == parts[2]

    expected = [{(i, i + 6, i + 12) for i in range(6)}]
    assert search([[a], [b], [c]], Rule(allows)) == expected
    assert search([[a, b, c]], Rule(allows)) == expected


@pytest.mark.parametrize("size", [b for b in BLOCKS if b < 32])
@pytest.mark.parametrize("spread", [True, False])
def test_the_smallest_blocks_of_one_family_go_together(size: int, spread: bool) -> None:
    (family,) = families(96)
    blocks = [
        {*range(i, 96, 96 // size)} if spread else {*range(size * i, size * i + size)}
        for i in range(96 // size)
    ]
    rule = Rule(lambda removed: all(b <= removed or not b & removed for b in blocks))
    assert search([[family]], rule) == [{tuple(sorted(block)) for block in blocks}]


@given(seed=st.integers(0, 1000))
def test_blocks_whose_number_is_right_every_other_time_are_not_enough(seed: int) -> None:
    (family,) = families(32)
    rule = Rule(lambda removed: len(removed) % 4 == 0)
    (cells,) = couplings([[family]], rule, np.random.default_rng(seed))
    assert cells.shape == (8, 4)


@given(sizes=st.lists(st.integers(2, 40), min_size=1, max_size=6))
def test_what_nothing_helps_is_in_no_cell_and_costs_a_bounded_number_of_evaluations(
    sizes: list[int],
) -> None:
    rule = Rule(lambda removed: False)
    assert search([[family] for family in families(*sizes)], rule) == []
    assert rule.count <= len(sizes) * (PARTNERS + 1 + 2 * len(BLOCKS))


def test_after_many_families_in_vain_the_others_are_not_tried() -> None:
    rule = Rule(lambda removed: False)
    assert search([[family] for family in families(*[8] * 200)], rule) == []
    assert rule.count <= PATIENCE * (PARTNERS + 2 * len(BLOCKS)) + 1


def test_a_coupling_has_to_stand_several_masks() -> None:
    (family,) = families(8)
    rule = Rule(lambda removed: rule.count < CHECKS)
    assert search([[family]], rule) == []


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
    odd=st.booleans(),
)
def test_random_masks_remove_a_part_of_every_family(sizes: list[int], seed: int, odd: bool) -> None:
    masks = random_masks(sizes, np.random.default_rng(seed), odd=odd)
    assert [len(mask) for mask in masks] == sizes
    for mask in masks:
        kept, size = int(mask.sum()), len(mask)
        assert kept >= 1
        assert (kept < size) == (size > 1)
        if size > 4:
            assert 0.2 * size <= size - kept <= 0.8 * size
        if odd and size > 2:
            assert kept % 2 == 1


@given(seed=st.integers(0, 1000), size=st.integers(6, 40))
def test_families_of_equal_size_keep_different_numbers(seed: int, size: int) -> None:
    masks = random_masks([size, 3, size, size], np.random.default_rng(seed))
    assert len({int(masks[i].sum()) for i in (0, 2, 3)}) == 3
