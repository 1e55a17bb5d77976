"""Parts of the training images."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcprune.data import Data, Images, hold_out, search_split
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


def data_with(labels: list[int]) -> Data:
    """Images whose only pixel is their place in the set."""
    images = Images(
        torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels)
    )
    test = Images(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.tensor([0]))
    return Data(images, test, ("a", "b", "c"), (0.5,), (0.5,), (1, 1, 1))


@given(
    st.permutations([0] * 9 + [1] * 20 + [2] * 31),
    st.integers(2, 12),
)
def test_every_nth_of_each_class_is_set_aside(labels: list[int], every: int) -> None:
    rest, held = hold_out(data_with(labels), every)
    expected = set()
    for label in range(3):
        members = [place for place, own in enumerate(labels) if own == label]
        expected |= set(members[::every])
    places = held.in_memory().pixels.flatten().tolist()
    assert places == sorted(expected)
    assert held.labels.tolist() == [labels[place] for place in places]
    left = rest.train.in_memory().pixels.flatten().tolist()
    assert left == sorted(set(range(60)) - expected)
    assert rest.train.labels.tolist() == [labels[place] for place in left]


def test_a_class_that_would_have_none_left_is_refused() -> None:
    with pytest.raises(DataError, match="none of class 'c'"):
        hold_out(data_with([0, 0, 1, 1, 2]), 2)


@pytest.mark.parametrize("every", [1, 0, -4])
def test_one_of_one_is_too_much(every: int) -> None:
    with pytest.raises(DataError, match="every 2nd"):
        hold_out(data_with([0, 0, 1, 1, 2, 2]), every)
