"""The batches that a network is trained and validated on: shuffled, varied, sharded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lcprune._checks import instance, integer, refused
from lcprune.data._pixels import Size, evaluated, random_box, resized_crop, shifted
from lcprune.data._readers import read_batches
from lcprune.data._sets import Augmentation, Data, ImageFiles, Images, ImageSet, to_device
from lcprune.errors import DataError

DEVICE_BYTES = 2 * 2**30
"""Images in memory lie on a GPU up to this size; of more the batches travel."""

Part = tuple[Tensor, Tensor, int]
"""Inputs and targets of a rank's part of a batch, and how many samples the whole batch has."""


def training_batches(
    images: ImageSet,
    data: Data,
    batch: int,
    *,
    crop: int | None = None,
    flip: bool | None = None,
    seed: int = 0,
) -> TrainingBatches:
    """Shuffled and augmented batches of ``images``, which are some of those of ``data``.

    Inputs are float32 (B, C, H, W), normalised; targets int64 (B,). ``crop`` is the largest shift
    in pixels, also where the data would have random parts taken (so that 0 leaves images in their
    place); ``flip`` is whether they are mirrored; none takes what suits ``data``. What epoch e of
    seed s holds depends on s and e alone. A last batch of one image is left out, since batch
    statistics need two. ``ImageFiles`` are streamed, any other set is brought into memory.
    """
    if not hasattr(images, "in_memory"):
        raise refused("images", images, "an ImageSet: Images or ImageFiles", DataError)
    if isinstance(images, ImageFiles):
        return StreamedBatches(images, data, batch, crop=crop, flip=flip, seed=seed)
    return AugmentedBatches(images.in_memory(), data, batch, crop=crop, flip=flip, seed=seed)


def part_of(size: int, rank: int, count: int) -> slice:
    """The samples of a batch of ``size`` that are the ``rank``'s of ``count``.

    The parts are the batch, in order, and differ in size by at most one. A batch with fewer
    samples than there are ranks is everybody's, since an empty part can't be run.
    """
    if size < count:
        return slice(0, size)
    return slice(rank * size // count, (rank + 1) * size // count)


class TrainingBatches:
    """Batches of (inputs, targets), in a new order and augmented anew every epoch.

    What they hold is said at ``training_batches``; all draws are made on the CPU.
    """

    def __init__(
        self,
        images: ImageSet,
        data: Data,
        batch: int,
        *,
        crop: int | None = None,
        flip: bool | None = None,
        seed: int = 0,
    ) -> None:
        instance("data", data, Data, "a Data", DataError)
        integer("batch", batch, 1, error=DataError)
        integer("seed", seed, 0, error=DataError)
        how = data.augmentation
        if crop is not None:
            how = replace(how, crop=crop, area=None)
        if flip is not None:
            how = replace(how, flip=flip)
        self._images: Any = images
        self._count = len(images)
        self._data = data
        self._batch = batch
        self._how = how
        self._seed = seed
        self._epoch = 0
        self._device = torch.device("cpu")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self._epoch = epoch

    def on_device(self, device: torch.device) -> Self:
        """The same batches there; what travels or lies there is uint8."""
        other = copy.copy(self)
        other._device = device
        return other

    def __len__(self) -> int:
        """A last batch of a single image is left out unless it is the only one."""
        count, rest = divmod(self._count, self._batch)
        return count + (rest > 1 or (rest == 1 and count == 0))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((inputs, targets) for inputs, targets, _ in self.shard(0, 1))

    def shard(self, rank: int, count: int) -> Iterator[Part]:
        """The part of each batch that is the ``rank``'s of ``count``, see ``part_of``."""
        raise NotImplementedError

    def _order(self) -> tuple[list[Tensor], torch.Generator]:
        """The indices of each batch, and a generator for what is done with it."""
        generator = epoch_generator(self._seed, self._epoch)
        order = torch.randperm(self._count, generator=generator)
        return list(torch.split(order, self._batch))[: len(self)], generator


class AugmentedBatches(TrainingBatches):
    """Training batches of images in memory.

    An image is shifted by up to ``crop`` pixels either way, the border filled with zeros after
    normalisation, and mirrored with probability 1/2 where ``flip`` is set. Random parts are taken
    where the data's augmentation has an ``area`` and no ``crop`` is asked for.
    """

    _images: Images

    def on_device(self, device: torch.device) -> Self:
        """The same batches there, of a copy of the images that lies there if it is not too large.

        Else the pixels of each batch travel, as uint8.
        """
        other = super().on_device(device)
        if self._images.pixels.numel() <= DEVICE_BYTES:
            pixels, labels = self._images.pixels.to(device), self._images.labels.to(device)
            other._images = Images(pixels, labels)
        return other

    def shard(self, rank: int, count: int) -> Iterator[Part]:
        """The part of each batch that is the ``rank``'s of ``count``, see ``part_of``."""
        batches, generator = self._order()
        for chosen in batches:
            part = part_of(len(chosen), rank, count)
            pixels = self._taken(self._images.pixels, chosen[part])
            inputs = self._augment(pixels, generator, len(chosen), part)
            yield inputs, self._taken(self._images.labels, chosen[part]), len(chosen)

    def _taken(self, values: Tensor, chosen: Tensor) -> Tensor:
        """Some of the values on the device, whether all lie there or those travel."""
        if values.device.type == self._device.type:
            return values[to_device(chosen, self._device)]
        return to_device(values[chosen], self._device)

    def _augment(
        self, pixels: Tensor, generator: torch.Generator, size: int, part: slice
    ) -> Tensor:
        """Vary the ``part`` of a batch of ``size``, all of which is drawn for."""
        how = self._how
        inputs = self._data.normalise(pixels)
        if how.area is not None:
            return self._parts(inputs, how.area, generator, size, part)
        if how.crop == 0 and not how.flip:
            return inputs
        count, _, height, width = inputs.shape
        padded = functional.pad(inputs, [how.crop] * 4).permute(0, 2, 3, 1)

        def drawn(high: int) -> Tensor:
            values = torch.randint(high, (size, 1), generator=generator)
            return to_device(values[part], inputs.device)

        def upto(end: int) -> Tensor:
            return torch.arange(end, device=inputs.device)

        rows = drawn(2 * how.crop + 1) + upto(height)
        columns = drawn(2 * how.crop + 1) + upto(width)
        if how.flip:
            columns = torch.where(drawn(2) == 1, columns.flip(1), columns)
        picked = padded[upto(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return picked.permute(0, 3, 1, 2).contiguous()

    def _parts(
        self,
        inputs: Tensor,
        area: tuple[float, float],
        generator: torch.Generator,
        size: int,
        part: slice,
    ) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator))
        random = np.random.default_rng(seed)
        whole = (inputs.shape[2], inputs.shape[3])
        drawn = [
            (*random_box(whole, area, random), self._how.flip and random.integers(2) == 1)
            for _ in range(size)
        ][part]
        output = torch.empty_like(inputs)
        for image, result, (top, left, height, width, mirrored) in zip(
            inputs, output, drawn, strict=True
        ):
            cut = image[None, :, top : top + height, left : left + width]
            cut = cut.flip(-1) if mirrored else cut
            result.copy_(functional.interpolate(cut, whole, mode="bilinear", antialias=True)[0])
        return output


class StreamedBatches(TrainingBatches):
    """Training batches of ``ImageFiles``.

    Every file is decoded once per epoch, ahead of its use, by worker processes. What becomes of an
    image depends on seed, epoch and its index alone, so that the number of processes changes
    nothing.
    """

    _images: ImageFiles

    def shard(self, rank: int, count: int) -> Iterator[Part]:
        """The part of each batch that is the ``rank``'s of ``count``, see ``part_of``.

        Only its files are read, by the rank's share of the worker processes.
        """
        images, data = self._images, self._data
        batches, _ = self._order()
        parts = [chosen[part_of(len(chosen), rank, count)] for chosen in batches]
        fill = tuple(round(255 * mean) for mean in data.mean)
        key = (self._seed, self._epoch)
        read = _Reader(self._how, images.size, images.resized, fill, key)
        # Named one by one: a list of a million paths would be most of a gigabyte.
        files = ((index, images.files[index]) for part in parts for index in part.tolist())
        workers = -(-images.workers // count)
        pixels = read_batches(read, files, map(len, parts), workers)
        for chosen, part, own in zip(batches, parts, pixels, strict=True):
            inputs = data.normalise(to_device(own, self._device))
            yield inputs, to_device(images.labels[part], self._device), len(chosen)


class ValidationBatches:
    """The images of a set in order, as they are evaluated, normalised, in batches.

    Iterating yields (inputs, targets), as often as it is asked for.
    """

    def __init__(self, images: ImageSet, data: Data, batch: int) -> None:
        self._images: Any = images
        self._data = data
        self._batch = batch
        self._device = torch.device("cpu")

    def on_device(self, device: torch.device) -> ValidationBatches:
        """The same batches there; what travels is uint8."""
        other = copy.copy(self)
        other._device = device
        return other

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((inputs, targets) for inputs, targets, _ in self.shard(0, 1))

    def shard(self, rank: int, count: int) -> Iterator[Part]:
        """The part of each of larger batches that is the ``rank``'s of ``count``."""
        images, whole = self._images, self._batch * count
        if count > 1:
            batches = torch.split(torch.arange(len(images)), whole)
            own = [chosen[part_of(len(chosen), rank, count)] for chosen in batches]
            images = images.subset(torch.cat(own))
        left = len(self._images)
        for pixels, labels in images.batches(self._batch):
            inputs = self._data.normalise(to_device(pixels, self._device))
            yield inputs, to_device(labels, self._device), min(whole, left)
            left = left - whole if left > whole else left


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A generator that depends on the two numbers alone."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


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
