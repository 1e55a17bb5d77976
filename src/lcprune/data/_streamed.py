"""Training batches of images that are read from files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcprune.data._augment import batch_count, epoch_generator
from lcprune.data._geometry import Size
from lcprune.data._image_files import ImageFiles
from lcprune.data._read import evaluated, resized_crop, shifted
from lcprune.data._values import Augmentation, Data
from lcprune.data._workers import read_batches


class StreamedBatches:
    """Batches of (inputs, targets) in a new order, read and augmented anew every epoch.

    As ``AugmentedBatches``, for ``ImageFiles``: every file is decoded once per epoch, ahead of its
    use, by worker processes. What becomes of an image depends on seed, epoch and its index alone,
    so that the number of processes changes nothing.
    """

    def __init__(
        self,
        images: ImageFiles,
        data: Data,
        batch: int,
        *,
        augmentation: Augmentation,
        seed: int = 0,
    ) -> None:
        if batch < 1:
            raise ValueError(f"expected a batch of at least 1, got {batch}")
        self._images = images
        self._data = data
        self._batch = batch
        self._augmentation = augmentation
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self._epoch = epoch

    def __len__(self) -> int:
        return batch_count(len(self._images), self._batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, data = self._images, self._data
        generator = epoch_generator(self._seed, self._epoch)
        order = torch.randperm(len(images), generator=generator)[: len(self) * self._batch]
        fill = tuple(round(255 * mean) for mean in data.mean)
        key = (self._seed, self._epoch)
        read = _Reader(self._augmentation, images.size, images.resized, fill, key)
        # Named one by one: a list of a million paths would be most of a gigabyte.
        files = ((index, images.files[index]) for index in map(int, order.numpy()))
        batches = read_batches(read, files, self._batch, images.workers)
        for which, pixels in enumerate(batches):
            chosen = order[which * self._batch : (which + 1) * self._batch]
            yield data.normalise(pixels), images.labels[chosen]


@dataclass(frozen=True)
class _Reader:
    """Reads an image, given its index and its file, as it looks in one epoch."""

    augmentation: Augmentation
    size: Size
    resized: Size
    fill: tuple[int, ...]
    key: tuple[int, int]
    """Seed and epoch."""

    def __call__(self, image: tuple[int, Path]) -> Tensor:
        index, file = image
        how, generator = self.augmentation, np.random.default_rng([*self.key, index])
        if how.area is not None:
            pixels = resized_crop(file, self.size, how.area, generator)
        else:
            pixels = evaluated(file, self.resized, self.size)
            if how.crop:
                down, right = generator.integers(-how.crop, how.crop + 1, 2).tolist()
                pixels = shifted(pixels, down, right, self.fill)
        mirrored = how.flip and generator.integers(2) == 1
        return pixels.flip(-1) if mirrored else pixels
