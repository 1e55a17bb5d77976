"""The batches that a network is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from lcprune.data._augment import AugmentedBatches
from lcprune.data._image_files import ImageFiles
from lcprune.data._streamed import StreamedBatches
from lcprune.data._values import Data, ImageSet


class TrainingBatches(Protocol):
    """Batches of (inputs, targets), in a new order and augmented anew every epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


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
    how = data.augmentation
    if crop is not None:
        how = replace(how, crop=crop, area=None)
    if flip is not None:
        how = replace(how, flip=flip)
    if isinstance(images, ImageFiles):
        return StreamedBatches(images, data, batch, augmentation=how, seed=seed)
    return AugmentedBatches(images.in_memory(), data, batch, augmentation=how, seed=seed)
