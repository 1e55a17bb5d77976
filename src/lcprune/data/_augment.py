"""Shuffled, shifted and mirrored batches, made for whole batches at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lcprune.data._geometry import random_box
from lcprune.data._values import Augmentation, Data, Images


class AugmentedBatches:
    """Batches of (inputs, targets) in a new order and with new shifts every epoch.

    Inputs are float32 (B, C, H, W), normalised; targets int64 (B,). An image is shifted by up to
    ``crop`` pixels either way, the border filled with zeros after normalisation, and mirrored
    with probability 1/2 where ``flip`` is set; none takes what ``augmentation`` says, or else
    ``data``. Random parts are taken where that has an ``area``. What epoch e of seed s holds
    depends on s and e alone. A last batch of one image is left out, since batch statistics need
    two.
    """

    def __init__(
        self,
        images: Images,
        data: Data,
        batch: int,
        *,
        crop: int | None = None,
        flip: bool | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        if batch < 1:
            raise ValueError(f"expected a batch of at least 1, got {batch}")
        self._images = images
        self._data = data
        self._batch = batch
        how = augmentation or data.augmentation
        self._area = how.area if crop is None else None
        self._crop = how.crop if crop is None else crop
        self._flip = how.flip if flip is None else flip
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self._epoch = epoch

    def __len__(self) -> int:
        return batch_count(len(self._images), self._batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = epoch_generator(self._seed, self._epoch)
        order = torch.randperm(len(self._images), generator=generator)
        for i in range(len(self)):
            chosen = order[i * self._batch : (i + 1) * self._batch]
            pixels = self._images.pixels[chosen]
            yield self._augment(pixels, generator), self._images.labels[chosen]

    def _augment(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        inputs = self._data.normalise(pixels)
        if self._area is not None:
            return self._parts(inputs, self._area, generator)
        if self._crop == 0 and not self._flip:
            return inputs
        count, _, height, width = inputs.shape
        padded = functional.pad(inputs, [self._crop] * 4).permute(0, 2, 3, 1)

        def shifts(size: int) -> Tensor:
            high = 2 * self._crop + 1
            first = torch.randint(high, (count, 1), generator=generator)
            return first + torch.arange(size)

        rows, columns = shifts(height), shifts(width)
        if self._flip:
            mirrored = torch.randint(2, (count, 1), generator=generator) == 1
            columns = torch.where(mirrored, columns.flip(1), columns)
        picked = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return picked.permute(0, 3, 1, 2).contiguous()

    def _parts(
        self, inputs: Tensor, area: tuple[float, float], generator: torch.Generator
    ) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator))
        random = np.random.default_rng(seed)
        output = torch.empty_like(inputs)
        size = (inputs.shape[2], inputs.shape[3])
        for image, result in zip(inputs, output, strict=True):
            top, left, height, width = random_box(size, area, random)
            part = image[None, :, top : top + height, left : left + width]
            if self._flip and random.integers(2) == 1:
                part = part.flip(-1)
            result.copy_(functional.interpolate(part, size, mode="bilinear", antialias=True)[0])
        return output


def batch_count(images: int, batch: int) -> int:
    """Batches of an epoch: a last one of a single image is left out unless it is the only one."""
    count, rest = divmod(images, batch)
    return count + (rest > 1 or (rest == 1 and count == 0))


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A generator that depends on the two numbers alone."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
