"""The parts of the training images that a search looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcprune.errors import DataError


@dataclass(frozen=True, eq=False)
class SearchSplit:
    """Indices into the training images, int64, ascending: disjoint.

    Those to validate on are into the images held out, where there are any.
    """

    recalibrate: Tensor
    validate: Tensor


def search_split(
    count: int, recalibrate: int, validate: int, seed: int, *, held: int = 0
) -> SearchSplit:
    """Draw disjoint sets for recalibration and for validation out of ``count`` images.

    Where there are not enough, both shrink in proportion, to at least one image each. With
    ``held`` images that nothing is trained on, the set for validation is drawn out of those.
    ``DataError`` for fewer than two images or a wish below one.
    """
    if recalibrate < 1 or validate < 1:
        raise DataError(f"expected at least one image a set, got {recalibrate} and {validate}")
    if count < 2:
        raise DataError(f"expected at least two training images, got {count}")
    generator = np.random.default_rng(seed)
    if held:
        return SearchSplit(
            recalibrate=_drawn(generator.permutation(count)[:recalibrate]),
            validate=_drawn(generator.permutation(held)[:validate]),
        )
    wanted = recalibrate + validate
    if wanted > count:
        recalibrate = min(max(1, count * recalibrate // wanted), count - 1)
        validate = count - recalibrate
    order = generator.permutation(count)
    return SearchSplit(
        recalibrate=_drawn(order[:recalibrate]),
        validate=_drawn(order[recalibrate : recalibrate + validate]),
    )


def _drawn(indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
    return torch.from_numpy(np.sort(indices))
