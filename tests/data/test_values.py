"""Images and data sets as values."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from lcprune.data import Data, Images
from lcprune.errors import DataError


def images(count: int = 4, label: int = 1, channels: int = 3) -> Images:
    pixels = torch.randint(256, (count, channels, 5, 6), dtype=torch.uint8)
    labels = torch.arange(count) % (label + 1)
    return Images(pixels, labels)


def data(**changes: object) -> Data:
    values: dict[str, object] = {
        "train": images(),
        "test": images(2),
        "classes": ("a", "b"),
        "mean": (0.1, 0.2, 0.3),
        "std": (0.5, 0.6, 0.7),
        "input_shape": (3, 5, 6),
    }
    return Data(**(values | changes))  # type: ignore[arg-type]


def test_normalise_is_the_textbook_formula_and_leaves_pixels_alone() -> None:
    value = data()
    pixels = value.train.pixels.clone()
    result = value.normalise(pixels)
    mean = torch.tensor(value.mean, dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor(value.std, dtype=torch.float64).view(3, 1, 1)
    expected = (pixels.double() / 255 - mean) / std
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(pixels, value.train.pixels)


def test_a_subset_is_a_copy() -> None:
    whole = images(4)
    part = whole.subset(torch.tensor([2, 0]))
    assert torch.equal(part.pixels, whole.pixels[[2, 0]])
    assert torch.equal(part.labels, whole.labels[[2, 0]])
    part.pixels.zero_()
    assert int(whole.pixels.sum()) > 0


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "pixels: expected uint8"),
        (torch.zeros(2, 3, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "pixels"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2), "labels: expected int64"),
        (
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            r"labels: expected int64 \(2,\)",
        ),
    ],
)
def test_images_of_the_wrong_kind_are_refused(pixels: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Images(pixels, labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a",)}, "at least two classes, got 1"),
        ({"mean": (0.1,)}, "for 3 channels"),
        ({"std": (0.5, 0.0, 0.7)}, "std > 0"),
        ({"test": images(0)}, "test split holds no images"),
        ({"input_shape": (3, 6, 5)}, r"train images are \(3, 5, 6\), expected \(3, 6, 5\)"),
        ({"test": images(3, label=2)}, "test labels run from 0 to 2, expected 0 to 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data(**changes)


def test_the_fingerprint_sees_every_part() -> None:
    base = data()
    pixels = base.train.pixels.clone()
    pixels[3, 2, 4, 5] ^= 1
    swapped = Images(base.train.pixels, base.train.labels.flip(0))
    variants = [
        base,
        dataclasses.replace(base, classes=("a", "c")),
        dataclasses.replace(base, train=Images(pixels, base.train.labels)),
        dataclasses.replace(base, train=swapped),
        dataclasses.replace(base, train=base.test, test=base.train),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    same = dataclasses.replace(base, train=base.train.subset(torch.arange(4)))
    assert same.fingerprint == base.fingerprint
