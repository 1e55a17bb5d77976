"""A part of the images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from lcprune.errors import InputError
from lcprune.fitness import CrossEntropy, Divisible, first_part


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    percent=st.integers(0, 100),
    pairs=st.booleans(),
)
def test_a_part_is_the_first_images_rounded_up_at_least_sixteen(
    sizes: list[int], percent: int, pairs: bool
) -> None:
    images = torch.arange(sum(sizes), dtype=torch.float32)
    batches = list(images.split(sizes))
    if pairs:
        part = first_part([(batch, batch + 0.5) for batch in batches], percent / 100)
        assert all((other - one == 0.5).all() for one, other in part)
        found = torch.cat([one for one, _ in part])
    else:
        found = torch.cat(first_part(batches, percent / 100))
    count = min(sum(sizes), max(16, math.ceil(sum(sizes) * percent / 100 - 1e-9)))
    assert found.tolist() == list(range(len(found)))
    ends = np.cumsum(sizes).tolist()
    alone = count - 1 in ends and count not in ends  # one image of a larger batch
    assert len(found) == count - alone


def test_nothing_is_copied() -> None:
    images = torch.zeros(50)
    (part,) = first_part([images], 0.5)
    assert len(part) == 25
    assert part.data_ptr() == images.data_ptr()


def test_of_no_batches_there_is_no_part() -> None:
    assert first_part([], 0.5) == []


@pytest.mark.parametrize("share", [0.5, 0.6, 1.0])
def test_the_cross_entropy_of_a_part_is_that_of_its_images(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 6, generator=generator)
    labels = torch.randint(0, 5, (40,), generator=generator)
    model = nn.Linear(6, 5)
    fitness = CrossEntropy(images, labels, batch=16)
    assert isinstance(fitness, Divisible)
    count = round(40 * share)
    with torch.no_grad():
        expected = functional.cross_entropy(model(images[:count]), labels[:count])
        whole = functional.cross_entropy(model(images), labels)
    assert fitness.part(share)(model) == pytest.approx(float(expected), rel=1e-6)
    assert fitness(model) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    fitness = CrossEntropy(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), batch=2)
    with pytest.raises(InputError, match=r"expected 0 … 1"):
        fitness.part(share)
