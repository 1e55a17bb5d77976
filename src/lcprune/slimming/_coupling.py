"""Families that fail when their channels go: which channels have to go together?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lcprune.graph import BoolArray, IntArray

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
        same_size = rng.permutation([i for i, other in enumerate(sizes) if other == size])
        for family, removed in zip(
            same_size, np.resize(rng.permutation(counts), len(same_size)), strict=True
        ):
            masks[family][rng.choice(size, size=removed, replace=False)] = False
    return masks


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
    for same_size in by_size.values():
        for family in search.paired(same_size):
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

    def paired(self, same_size: list[IntArray]) -> list[IntArray]:
        """Couple families of one size in pairs, or all that are left; the rest is returned."""
        left = list(same_size)
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
