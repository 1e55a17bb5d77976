"""Shuffled, shifted and mirrored batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lcprune.data import (
    Augmentation,
    AugmentedBatches,
    Data,
    Images,
    ValidationBatches,
    _augment,
    part_of,
)

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


AREA = Augmentation(crop=0, flip=True, area=(0.3, 1.0))


@pytest.mark.parametrize("how", [None, AREA])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_are_the_batch(count: int, how: Augmentation | None) -> None:
    data = numbered(23)
    if how is not None:
        data = replace(data, augmentation=how)
    batches = AugmentedBatches(data.train, data, 7, seed=3)
    batches.set_epoch(2)
    shards = [list(batches.shard(rank, count)) for rank in range(count)]
    for parts, (inputs, targets) in zip(zip(*shards, strict=True), batches, strict=True):
        assert {size for _, _, size in parts} == {len(targets)}
        if len(targets) < count:  # everybody has all of it
            parts = parts[:1]
        assert torch.equal(torch.cat([own for own, _, _ in parts]), inputs)
        assert torch.equal(torch.cat([own for _, own, _ in parts]), targets)


@given(size=st.integers(0, 300), count=st.integers(1, 17))
def test_parts_are_the_batch(size: int, count: int) -> None:
    parts = [range(size)[part_of(size, rank, count)] for rank in range(count)]
    if size < count:
        assert parts == [range(size)] * count
    else:
        assert [i for part in parts for i in part] == list(range(size))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_validation_shows_every_image_once_to_all_ranks_together(count: int) -> None:
    data = numbered(23)
    batches = ValidationBatches(data.train, data, 4)
    whole = data.normalise(data.train.pixels)
    weights = torch.zeros(23)
    for rank in range(count):
        for inputs, targets, size in batches.shard(rank, count):
            assert len(targets) <= 4
            assert torch.equal(inputs, whole[targets])
            weights[targets] += 1 / count if size < count else 1
    torch.testing.assert_close(weights, torch.ones(23))


def test_batches_lie_on_the_device_that_is_asked_for() -> None:
    """The meta device stands for another one: sizes and types are right there, values are not."""
    data = numbered(10)
    for batches in (AugmentedBatches(data.train, data, 4), ValidationBatches(data.train, data, 4)):
        for device in ("meta", "cpu"):
            moved = batches.on_device(torch.device(device))
            for (inputs, targets), (own, _) in zip(moved, batches, strict=True):
                assert inputs.device.type == targets.device.type == device
                assert (inputs.shape, inputs.dtype) == (own.shape, torch.float32)
                assert device == "meta" or torch.equal(inputs, own)
    assert data.train.pixels.device.type == "cpu"


def test_images_that_are_too_many_for_a_device_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_augment, "DEVICE_BYTES", 0)
    data = numbered(10)
    batches = AugmentedBatches(data.train, data, 4).on_device(torch.device("meta"))
    assert batches._images.pixels.device.type == "cpu"
    assert {inputs.device.type for inputs, _ in batches} == {"meta"}
