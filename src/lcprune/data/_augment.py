"""Shuffled, shifted and mirrored batches, made for whole batches at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lcprune.data._values import Data, Images


class AugmentedBatches:
    """Batches of (inputs, targets) in a new order and with new shifts every epoch.

    Inputs are float32 (B, C, H, W), normalised; targets int64 (B,). An image is shifted by up to
    ``crop`` pixels either way, the border filled with zeros after normalisation, and mirrored
    with probability 1/2 where ``flip`` is set; none takes what suits ``data``. What epoch e of
    seed s holds depends on s and e alone. A last batch of one image is left out, since batch
    statistics need two.
    """

    def __init__(
        self,
        images: Images,
        data: Data,
        batch: int,
        *,
        crop: int | None = None,
        flip: bool | None = None,
        seed: int = 0,
    ) -> None:
        if batch < 1:
            raise ValueError(f"expected a batch of at least 1, got {batch}")
        self._images = images
        self._data = data
        self._batch = batch
        self._crop = data.augmentation.crop if crop is None else crop
        self._flip = data.augmentation.flip if flip is None else flip
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self._epoch = epoch

    def __len__(self) -> int:
        count, rest = divmod(len(self._images), self._batch)
        return count + (rest > 1 or (rest == 1 and count == 0))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        state = np.random.SeedSequence([self._seed, self._epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        order = torch.randperm(len(self._images), generator=generator)
        for i in range(len(self)):
            chosen = order[i * self._batch : (i + 1) * self._batch]
            pixels = self._images.pixels[chosen]
            yield self._augment(pixels, generator), self._images.labels[chosen]

    def _augment(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        inputs = self._data.normalise(pixels)
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
