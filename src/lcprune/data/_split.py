"""The parts of the training images that a search looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcprune.errors import DataError


@dataclass(frozen=True, eq=False)
class SearchSplit:
    """Disjoint indices into the training images, int64, ascending."""

    recalibrate: Tensor
    validate: Tensor


def search_split(count: int, recalibrate: int, validate: int, seed: int) -> SearchSplit:
    """Draw disjoint sets for recalibration and for validation out of ``count`` images.

    Where there are not enough, both shrink in proportion, to at least one image each.
    ``DataError`` for fewer than two images or a wish below one.
    """
    if recalibrate < 1 or validate < 1:
        raise DataError(f"expected at least one image a set, got {recalibrate} and {validate}")
    if count < 2:
        raise DataError(f"expected at least two training images, got {count}")
    wanted = recalibrate + validate
    if wanted > count:
        recalibrate = min(max(1, count * recalibrate // wanted), count - 1)
        validate = count - recalibrate
    order = np.random.default_rng(seed).permutation(count)
    return SearchSplit(
        recalibrate=torch.from_numpy(np.sort(order[:recalibrate])),
        validate=torch.from_numpy(np.sort(order[recalibrate : recalibrate + validate])),
    )
