"""Families that fail when their channels go: which channels have to go together?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lcprune.graph import IntArray
from lcprune.slimming._random_masks import random_masks

BLOCKS = (2, 3, 4, 8, 16, 32)
"""How many groups of one family may have to go together, tried in this order."""

PARTNERS = 3
"""With how many other families of its size a family is tried in step."""

CHECKS = 3
"""How many random masks a coupling has to stand."""

PATIENCE = 8
"""After so many families in a row that no partner (no blocks) helps, the others are not tried."""

Right = Callable[[IntArray], bool]
"""Whether removing these groups, and no other ones, leaves a model that is right."""


def couplings(
    culprits: Sequence[Sequence[IntArray]], right: Right, rng: np.random.Generator
) -> list[IntArray]:
    """What has to be coupled to make ``culprits`` right, as arrays [cells, groups of a cell].

    A culprit is the groups of one family, or of several that fail only together. Tried are:
    families of equal size in step (the same places go of each), in pairs, then all; and the
    blocks of one family, spread or side by side. Every coupling is right in several random masks
    that leave all else whole. Families in no cell are not helped by any of them.

    At most ``PARTNERS`` + 1 + 2 x len(``BLOCKS``) couplings a culprit are tried. One that is
    right costs ``CHECKS`` evaluations; one that is wrong mostly 1, and at most as many.
    """
    search = _Search(right, rng)
    for several in (culprit for culprit in culprits if len(culprit) > 1):
        search.in_step(several)
    by_size: dict[int, list[IntArray]] = {}
    for single in (culprit[0] for culprit in culprits if len(culprit) == 1):
        by_size.setdefault(len(single), []).append(single)
    for alike in by_size.values():
        for family in search.paired(alike):
            search.in_blocks(family)
    return search.found


class _Search:
    def __init__(self, right: Right, rng: np.random.Generator) -> None:
        self.found: list[IntArray] = []
        self._right = right
        self._rng = rng
        self._unpaired = 0
        self._unblocked = 0

    def in_step(self, families: Sequence[IntArray]) -> bool:
        """Couple families place by place, if that is right."""
        if len({len(family) for family in families}) != 1:
            return False
        return self._accept(np.stack(families, axis=1))

    def paired(self, alike: list[IntArray]) -> list[IntArray]:
        """Couple families of one size in pairs, or all that are left; the rest is returned."""
        left = list(alike)
        alone: list[IntArray] = []
        while left:
            first = left.pop(0)
            tried = left[:PARTNERS] if self._unpaired < PATIENCE else []
            partner = next((i for i, b in enumerate(tried) if self.in_step((first, b))), None)
            if partner is None:
                alone.append(first)
                self._unpaired += bool(tried)
            else:
                del left[partner]
                self._unpaired = 0
        return [] if len(alone) > 2 and self.in_step(alone) else alone

    def in_blocks(self, family: IntArray) -> None:
        """Couple the smallest blocks of a family that are right."""
        if self._unblocked < PATIENCE:
            helped = any(self._accept(cells) for cells in _blocks(family))
            self._unblocked = 0 if helped else self._unblocked + 1

    def _accept(self, cells: IntArray) -> bool:
        for check in range(CHECKS):
            (keep,) = random_masks([len(cells)], self._rng, odd=check % 2 == 1)
            if keep.all() or not self._right(cells[~keep].reshape(-1)):
                return False
        self.found.append(cells)
        return True


def _blocks(family: IntArray) -> Iterator[IntArray]:
    for size in BLOCKS:
        if len(family) % size == 0 and len(family) > size:
            yield family.reshape(size, -1).T  # i, i + n / size, …
            yield family.reshape(-1, size)  # size x i, size x i + 1, …
