"""Labelled images in memory, and what a model has to know about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lcprune.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Images:
    """Pixels, uint8 (N, C, H, W), and labels, int64 (N,)."""

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

    def subset(self, indices: Tensor) -> Images:
        """The images at ``indices``, int64 (M,), as a copy."""
        return Images(self.pixels[indices], self.labels[indices])


@dataclass(frozen=True)
class Augmentation:
    """What training may do to an image: shift by up to ``crop`` pixels, mirror."""

    crop: int = 4
    flip: bool = True


@dataclass(frozen=True, eq=False)
class Data:
    """A data set for classification: a training and a test split, and how to normalise them.

    ``mean`` and ``std`` hold one number per channel, for pixels in 0..1; ``input_shape`` is
    (C, H, W). The test split is for final figures only. ``DataError`` where the parts don't fit
    one another.
    """

    train: Images
    test: Images
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
            if tuple(images.pixels.shape[1:]) != tuple(self.input_shape):
                raise DataError(
                    f"{self._label}{split} images are {tuple(images.pixels.shape[1:])}, "
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
        """A hash of class names, labels and pixels of both splits."""
        digest = hashlib.sha256(repr((self.classes, self.input_shape)).encode())
        for images in (self.train, self.test):
            digest.update(len(images).to_bytes(8, "little"))
            digest.update(images.labels.contiguous().numpy().data)
            digest.update(images.pixels.contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def _label(self) -> str:
        return f"{self.name}: " if self.name else ""
