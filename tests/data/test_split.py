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


@given(
    count=st.integers(2, 100),
    recalibrate=sizes,
    validate=sizes,
    fresh=st.integers(1, 60),
    seed=st.integers(0, 9),
    held=st.one_of(st.just(0), st.integers(1, 100)),
)
def test_fresh_images_are_others_and_move_nothing(
    count: int, recalibrate: int, validate: int, fresh: int, seed: int, held: int
) -> None:
    plain = search_split(count, recalibrate, validate, seed, held=held)
    assert len(plain.fresh) == 0
    pool = held or count
    taken = plain.validate if held else torch.cat([plain.recalibrate, plain.validate])
    left = set(range(pool)) - set(taken.tolist())
    if len(left) < fresh:
        with pytest.raises(DataError, match=f"expected {fresh} images .* got {len(left)}: "):
            search_split(count, recalibrate, validate, seed, held=held, fresh=fresh)
        return
    split = search_split(count, recalibrate, validate, seed, held=held, fresh=fresh)
    assert torch.equal(split.recalibrate, plain.recalibrate)
    assert torch.equal(split.validate, plain.validate)
    assert len(split.fresh) == len(set(split.fresh.tolist())) == fresh
    assert set(split.fresh.tolist()) <= left
    assert split.fresh.tolist() == sorted(split.fresh.tolist())


@pytest.mark.parametrize(
    ("held", "recalibrate", "validate"),
    [
        (0, [3, 9, 18], [1, 7, 16, 19]),
        (9, [3, 9, 18], [2, 4, 5, 6]),
    ],
)
def test_the_sets_of_journals_that_exist(
    held: int, recalibrate: list[int], validate: list[int]
) -> None:
    """A journal holds them, and refuses to go on with others."""
    split = search_split(20, 3, 4, 5, held=held, fresh=2)
    assert (split.recalibrate.tolist(), split.validate.tolist()) == (recalibrate, validate)


def test_the_seed_decides() -> None:
    first, same, other = (search_split(1000, 100, 200, seed) for seed in (3, 3, 4))
    assert torch.equal(first.recalibrate, same.recalibrate)
    assert torch.equal(first.validate, same.validate)
    assert not torch.equal(first.validate, other.validate)


@pytest.mark.parametrize("arguments", [(1, 1, 1, 0), (10, 0, 1, 0), (10, 1, 0, 0)])
def test_nothing_to_draw(arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataError, match="at least"):
        search_split(*arguments)
