"""Training images that no network is trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lcprune.data._values import Data, ImageSet
from lcprune.errors import DataError


def hold_out(data: Data, every: int) -> tuple[Data, ImageSet]:
    """Set aside the first of each ``every`` training images of a class, in the set's own order.

    Of a class with files sorted by name these are the files 0, ``every``, 2 * ``every``, …
    Returns the data without them, and them. ``DataError`` where a class would have none left to
    train on, or ``every`` is below 2.
    """
    if every < 2:
        raise DataError(f"expected to hold out every 2nd image or fewer, got every {every}")
    labels = data.train.labels
    held = torch.from_numpy(_place_in_class(labels) % every == 0)
    counts = torch.bincount(labels[~held], minlength=len(data.classes))
    if int(counts.min()) == 0:
        name = data.classes[int(counts.argmin())]
        raise DataError(f"holding out every {every}th image leaves none of class {name!r}")
    rest = data.train.subset(torch.nonzero(~held).flatten())
    return replace(data, train=rest), data.train.subset(torch.nonzero(held).flatten())


def _place_in_class(labels: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How many images of the same class come before each."""
    ordered = labels.numpy()
    by_class = np.argsort(ordered, kind="stable")
    first = np.searchsorted(ordered[by_class], ordered[by_class])
    place = np.empty(len(ordered), dtype=np.int64)
    place[by_class] = np.arange(len(ordered)) - first
    return place
