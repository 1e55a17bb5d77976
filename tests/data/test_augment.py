"""Shuffled, shifted and mirrored batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lcprune.data import AugmentedBatches, Data, Images

SIZE = 6


def numbered(count: int) -> Data:
    """Images whose first channel is the row, second the column, third 200; labels the index."""
    pixels = torch.zeros(count, 3, SIZE, SIZE, dtype=torch.uint8)
    pixels[:, 0] = (torch.arange(SIZE) + 1).view(SIZE, 1).to(torch.uint8)
    pixels[:, 1] = (torch.arange(SIZE) + 1).view(1, SIZE).to(torch.uint8)
    pixels[:, 2] = 200
    images = Images(pixels, torch.arange(count))
    return Data(
        images, images, tuple(map(str, range(count))), (0.0,) * 3, (1 / 255,) * 3, (3, SIZE, SIZE)
    )


def naive(image: Tensor, down: int, right: int, mirrored: bool, crop: int) -> Tensor:
    """Shift pixel by pixel, on a canvas of zeros."""
    result = torch.zeros_like(image)
    for row in range(SIZE):
        for column in range(SIZE):
            place = SIZE - 1 - column if mirrored else column
            source = (row + down - crop, place + right - crop)
            if 0 <= source[0] < SIZE and 0 <= source[1] < SIZE:
                result[:, row, column] = image[:, source[0], source[1]]
    return result


@given(crop=st.integers(0, 3), flip=st.booleans(), seed=st.integers(0, 5))
def test_every_image_is_a_shift_and_mirror_of_its_own(crop: int, flip: bool, seed: int) -> None:
    data = numbered(5)
    original = data.normalise(data.train.pixels)
    possible = [
        naive(original[0], down, right, mirrored, crop)
        for down in range(2 * crop + 1)
        for right in range(2 * crop + 1)
        for mirrored in ({False, True} if flip else {False})
    ]
    for inputs, _ in AugmentedBatches(data.train, data, 2, crop=crop, flip=flip, seed=seed):
        for image in inputs:
            assert any(torch.allclose(image, other, atol=1e-3) for other in possible)


def test_all_shifts_and_both_mirrors_occur() -> None:
    data = numbered(400)
    batches = AugmentedBatches(data.train, data, 400, crop=1, flip=True)
    ((inputs, _),) = batches
    kinds = {tuple(image[:2, 2, 2:4].round().int().flatten().tolist()) for image in inputs}
    assert len(kinds) == 3 * 3 * 2


@pytest.mark.parametrize(("count", "sizes"), [(8, [4, 4]), (10, [4, 4, 2]), (9, [4, 4]), (1, [1])])
def test_every_image_comes_once_but_a_lonely_last_one(count: int, sizes: list[int]) -> None:
    data = numbered(10)
    images = data.train.subset(torch.arange(count))
    batches = AugmentedBatches(images, data, 4)
    seen = [targets for _, targets in batches]
    assert [len(targets) for targets in seen] == sizes
    assert len(batches) == len(sizes)
    labels = torch.cat(seen).tolist()
    assert len(set(labels)) == len(labels)
    assert set(labels) <= set(range(count))


def epoch(batches: AugmentedBatches, number: int) -> tuple[Tensor, Tensor]:
    batches.set_epoch(number)
    parts = list(batches)
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def test_seed_and_epoch_alone_decide() -> None:
    data = numbered(12)
    batches = AugmentedBatches(data.train, data, 4, seed=5)
    first, labels = epoch(batches, 3)
    epoch(batches, 0)
    torch.rand(7)
    again, labels_again = epoch(batches, 3)
    assert torch.equal(first, again)
    assert torch.equal(labels, labels_again)
    fresh, fresh_labels = epoch(AugmentedBatches(data.train, data, 4, seed=5), 3)
    assert torch.equal(first, fresh)
    assert torch.equal(labels, fresh_labels)
    for other in (
        epoch(batches, 4),
        epoch(AugmentedBatches(data.train, data, 4, seed=6), 3),
    ):
        assert not torch.equal(labels, other[1])


def test_global_generator_is_not_drawn_from() -> None:
    data = numbered(4)
    before = torch.get_rng_state()
    list(AugmentedBatches(data.train, data, 2))
    assert torch.equal(before, torch.get_rng_state())


def test_a_data_set_says_what_suits_it() -> None:
    from lcprune.data import load_data

    digits = load_data("digits")
    plain = digits.normalise(digits.train.pixels)
    bottom = plain.min()
    batches = AugmentedBatches(digits.train, digits, len(digits.train))
    inputs, targets = epoch(batches, 0)
    assert inputs.shape == plain.shape
    assert torch.bincount(targets).tolist() == torch.bincount(digits.train.labels).tolist()
    # The sixth and seventh columns' ink stays on the right: digits are not mirrored.
    left, right = plain[..., :1].mean() - bottom, plain[..., -1:].mean() - bottom
    assert (inputs[..., :1].mean() > inputs[..., -1:].mean()) == bool(left > right)
