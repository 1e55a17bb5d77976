"""Parts of the training images: what a search looks at, and what no network is trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lcprune._checks import instance, integer
from lcprune.data._sets import Data, ImageSet
from lcprune.errors import DataError


@dataclass(frozen=True, eq=False)
class SearchSplit:
    """Indices into the training images, int64, ascending: disjoint.

    Those to validate on, and the fresh ones, which the search leaves for whoever judges what it
    found, are into the images held out, where there are any.
    """

    recalibrate: Tensor
    validate: Tensor
    fresh: Tensor


def search_split(
    count: int, recalibrate: int, validate: int, seed: int, *, held: int = 0, fresh: int = 0
) -> SearchSplit:
    """Draw disjoint sets for recalibration and for validation out of ``count`` images.

    Where there are not enough, both shrink in proportion, to at least one image each. With
    ``held`` images that nothing is trained on, the set for validation is drawn out of those, and
    so are the ``fresh`` ones. Those move neither of the other sets, and don't shrink: a search is
    the same with and without them. ``DataError`` for fewer than two images, a wish below one, and
    where fewer than ``fresh`` are left beside the other sets.
    """
    for name, value in (("recalibrate", recalibrate), ("validate", validate)):
        integer(name, value, 1, error=DataError)
    for name, value in (("seed", seed), ("held", held), ("fresh", fresh)):
        integer(name, value, 0, error=DataError)
    if integer("count", count, error=DataError) < 2:
        raise DataError(f"expected at least two training images, got {count}")
    generator = np.random.default_rng(seed)
    wanted = recalibrate + validate
    if not held and wanted > count:
        recalibrate = min(max(1, count * recalibrate // wanted), count - 1)
        validate = count - recalibrate
    order = generator.permutation(count)
    recalibrating, others = order[:recalibrate], order[recalibrate:]
    if held:
        others = generator.permutation(held)
    left = others[validate:]
    if len(left) < fresh:
        pool = f"{held} images held out" if held else f"{count} training images"
        raise DataError(
            f"expected {fresh} images to judge finalists on, got {len(left)}: the search takes the"
            f" others of {pool}, have it take fewer"
        )
    return SearchSplit(
        recalibrate=_drawn(recalibrating),
        validate=_drawn(others[:validate]),
        fresh=_drawn(left[:fresh]),
    )


def _drawn(indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
    return torch.from_numpy(np.sort(indices))


def hold_out(data: Data, every: int) -> tuple[Data, ImageSet]:
    """Set aside the first of each ``every`` training images of a class, in the set's own order.

    Of a class with files sorted by name these are the files 0, ``every``, 2 * ``every``, …
    Returns the data without them, and them. ``DataError`` where a class would have none left to
    train on, or ``every`` is below 2.
    """
    instance("data", data, Data, "a Data", DataError)
    if integer("every", every, error=DataError) < 2:
        raise DataError(f"expected to hold out every 2nd image or fewer, got every {every}")
    labels = data.train.labels
    held = torch.from_numpy(_index_in_class(labels) % every == 0)
    counts = torch.bincount(labels[~held], minlength=len(data.classes))
    if int(counts.min()) == 0:
        name = data.classes[int(counts.argmin())]
        raise DataError(f"holding out every {every}th image leaves none of class {name!r}")
    rest = data.train.subset(torch.nonzero(~held).flatten())
    return replace(data, train=rest), data.train.subset(torch.nonzero(held).flatten())


def _index_in_class(labels: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How many images of the same class come before each."""
    ordered = labels.numpy()
    by_class = np.argsort(ordered, kind="stable")
    first = np.searchsorted(ordered[by_class], ordered[by_class])
    index = np.empty(len(ordered), dtype=np.int64)
    index[by_class] = np.arange(len(ordered)) - first
    return index
