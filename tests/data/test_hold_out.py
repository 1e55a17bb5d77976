from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcprune.data import Data, Images, hold_out
from lcprune.errors import DataError


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
