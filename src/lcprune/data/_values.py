"""Labelled images in memory, and what a model has to know about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import torch
from torch import Tensor

from lcprune.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Digest(Protocol):
    """A hash that is being made, as of ``hashlib``."""

    def update(self, part: bytes | memoryview, /) -> None: ...


class ImageSet(Protocol):
    """Labelled images, in memory or read from files when they are asked for."""

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as it is evaluated."""

    def __len__(self) -> int: ...

    def subset(self, indices: Tensor) -> Self:
        """The images at ``indices``, int64 (M,)."""

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels, uint8 (B, C, H, W), as they are evaluated, and labels (B,), in order."""

    def in_memory(self) -> Images:
        """The same images, as they are evaluated, in memory."""

    def digest(self, into: Digest) -> None:
        """Add what tells this set from another to a hash."""


@dataclass(frozen=True, eq=False)
class Images:
    """Pixels, uint8 (N, C, H, W), and labels, int64 (N,): an ``ImageSet`` in memory."""

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.dim() != 4:
            raise DataError(
                "pixels: expected uint8 (N, C, H, W), got "
                f"{self.pixels.dtype} {tuple(self.pixels.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise DataError(
                f"labels: expected int64 ({len(self.pixels)},), got "
                f"{self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def subset(self, indices: Tensor) -> Images:
        """The images at ``indices``, int64 (M,), as a copy."""
        return Images(self.pixels[indices], self.labels[indices])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels of ``size`` images at a time, in order, as views."""
        yield from zip(torch.split(self.pixels, size), torch.split(self.labels, size), strict=True)

    def in_memory(self) -> Images:
        """These images."""
        return self

    def digest(self, into: Digest) -> None:
        """Add number, labels and pixels to a hash."""
        into.update(len(self).to_bytes(8, "little"))
        into.update(self.labels.contiguous().numpy().data)
        into.update(self.pixels.contiguous().numpy().data)


@dataclass(frozen=True)
class Augmentation:
    """What training may do to an image: shift by up to ``crop`` pixels, mirror with ``flip``.

    With ``area``, the least and the largest share, a random part of the image is scaled to its
    full size instead of a shift.
    """

    crop: int = 4
    flip: bool = True
    area: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise DataError(f"expected a shift of at least 0 pixels, got {self.crop}")
        if self.area is not None and not 0 < self.area[0] <= self.area[1] <= 1:
            raise DataError(f"area: expected two shares in 0..1, the least first, got {self.area}")


@dataclass(frozen=True, eq=False)
class Data:
    """A data set for classification: a training and a test split, and how to normalise them.

    ``mean`` and ``std`` hold one number per channel, for pixels in 0..1; ``input_shape`` is
    (C, H, W). The test split is for final figures only. ``DataError`` where the parts don't fit
    one another.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    name: str = ""
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError(f"{self._label}expected at least two classes, got {len(self.classes)}")
        channels = self.input_shape[0]
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise DataError(f"{self._label}expected a mean and a std > 0 for {channels} channels")
        for split, images in (("train", self.train), ("test", self.test)):
            if len(images) == 0:
                raise DataError(f"{self._label}the {split} split holds no images")
            if tuple(images.shape) != tuple(self.input_shape):
                raise DataError(
                    f"{self._label}{split} images are {tuple(images.shape)}, "
                    f"expected {tuple(self.input_shape)}"
                )
            low, high = int(images.labels.min()), int(images.labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(
                    f"{self._label}{split} labels run from {low} to {high}, "
                    f"expected 0 to {len(self.classes) - 1}"
                )

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels (N, C, H, W) into float32: to 0..1, minus mean, over deviation."""
        shape = (1, -1, 1, 1)
        output = pixels.to(torch.float32).div_(255)
        output.sub_(torch.tensor(self.mean).to(output.device).view(shape))
        return output.div_(torch.tensor(self.std).to(output.device).view(shape))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of class names and of what tells both splits from others."""
        digest = hashlib.sha256(repr((self.classes, self.input_shape)).encode())
        for images in (self.train, self.test):
            images.digest(digest)
        return digest.hexdigest()

    @property
    def _label(self) -> str:
        return f"{self.name}: " if self.name else ""


def first_pixels(images: ImageSet, count: int) -> Tensor:
    """Pixels, uint8 (B, C, H, W), of the first ``count`` images or of all, if they are fewer."""
    return images.subset(torch.arange(min(count, len(images)))).in_memory().pixels
