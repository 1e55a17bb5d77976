"""Random masks for checks: what they remove is chosen so that a dependence on sizes shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lcprune.graph import BoolArray


def random_masks(
    sizes: Sequence[int], rng: np.random.Generator, *, odd: bool = False
) -> list[BoolArray]:
    """A random mask, true where kept, for each family of so many groups.

    From 20 % to 80 % of every family go and at least one group stays; a family of one stays
    whole. Families of equal size keep different numbers of groups, as far as there are any: what
    needs equal sizes is not right by chance. With ``odd`` the numbers kept are odd where they
    can be: what needs an even size is not.
    """
    masks = [np.ones(size, dtype=np.bool_) for size in sizes]
    for size in sorted({size for size in sizes if size > 1}):
        counts = np.arange(max(1, math.ceil(0.2 * size)), max(1, math.floor(0.8 * size)) + 1)
        if odd and bool(((size - counts) % 2).any()):
            counts = counts[(size - counts) % 2 == 1]
        alike = rng.permutation([i for i, other in enumerate(sizes) if other == size])
        for family, removed in zip(
            alike, np.resize(rng.permutation(counts), len(alike)), strict=True
        ):
            masks[family][rng.choice(size, size=removed, replace=False)] = False
    return masks
