"""The images that a search looks at."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcprune.data import search_split
from lcprune.errors import DataError

sizes = st.integers(1, 60)


@given(count=st.integers(2, 100), recalibrate=sizes, validate=sizes, seed=st.integers(0, 9))
def test_disjoint_within_range_and_as_large_as_can_be(
    count: int, recalibrate: int, validate: int, seed: int
) -> None:
    split = search_split(count, recalibrate, validate, seed)
    first, second = set(split.recalibrate.tolist()), set(split.validate.tolist())
    assert not first & second
    assert first | second <= set(range(count))
    assert len(first) == len(split.recalibrate) >= 1
    assert len(second) == len(split.validate) >= 1
    if recalibrate + validate <= count:
        assert (len(first), len(second)) == (recalibrate, validate)
    else:
        assert len(first) + len(second) == count
        assert len(first) <= recalibrate or len(first) == 1
        assert abs(len(first) - count * recalibrate / (recalibrate + validate)) <= 1


def test_the_seed_decides() -> None:
    first, same, other = (search_split(1000, 100, 200, seed) for seed in (3, 3, 4))
    assert torch.equal(first.recalibrate, same.recalibrate)
    assert torch.equal(first.validate, same.validate)
    assert not torch.equal(first.validate, other.validate)


@pytest.mark.parametrize("arguments", [(1, 1, 1, 0), (10, 0, 1, 0), (10, 1, 0, 0)])
def test_nothing_to_draw(arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataError, match="at least"):
        search_split(*arguments)
