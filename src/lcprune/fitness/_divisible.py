"""Measuring on a part of the images, for less time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

FEWEST = 16

Batch = TypeVar("Batch", bound=Tensor | tuple[Tensor, ...])


@runtime_checkable
class Divisible(Protocol):
    """A fitness that can be measured on a part of its images."""

    def part(self, share: float) -> Callable[[nn.Module], float]:
        """The same fitness on the first ``share`` of the images, above 0 and at most 1."""


def first_part(batches: Sequence[Batch], share: float) -> list[Batch]:
    """The first ``share`` of the images in ``batches``, rounded up, not copied.

    At least ``FEWEST``, where there are as many. A batch is a tensor (N, …) or a tuple of such.
    The last one may be cut, but not to a single image, of which BatchNorm can't always make
    statistics: that one is left out.
    """
    sizes = [len(batch) if isinstance(batch, Tensor) else len(batch[0]) for batch in batches]
    # Rounded first: 0.1 * 30 is a little above 3 in binary.
    left = max(FEWEST, math.ceil(round(share * sum(sizes), 9)))
    part: list[Batch] = []
    for batch, size in zip(batches, sizes, strict=True):
        if left <= 0 or (left == 1 < size and part):
            break
        part.append(_first(batch, left) if left < size else batch)
        left -= size
    return part


def _first(batch: Any, count: int) -> Any:
    return batch[:count] if isinstance(batch, Tensor) else tuple(held[:count] for held in batch)
