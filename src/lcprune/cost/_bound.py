"""What a resource is, and the cost that most of them are: sums of products of kept sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from lcprune.cost._counts import Sum, Sums
from lcprune.graph import ChannelGraph, IntArray

Term = tuple[int, tuple[int, ...]]
"""A coefficient, and the channel vectors whose kept sizes multiply it."""


class BoundCost(Protocol):
    """A resource of one network, as a function of the kept sizes of its channel vectors."""

    @property
    def vectors(self) -> tuple[int, ...]:
        """The positions in ``ChannelGraph.vectors`` of the sizes that it reads, ascending."""

    def __call__(self, sizes: IntArray, /) -> IntArray:
        """Costs int64 [n] for sizes int64 [vectors, n]; never falls where a size grows."""


@runtime_checkable
class Resource(Protocol):
    """Something that a network uses up; ``unit`` is what its amounts are printed with."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def bind(self, graph: ChannelGraph) -> BoundCost:
        """The cost of a network of this graph."""


class LargestSum:
    """The largest of several sums of products of sizes; of a single sum, that sum.

    Sums that can never be the largest are left out. Costs are in units of ``divisor``, rounded up.
    """

    def __init__(self, sums: Iterable[Sum], divisor: int = 1) -> None:
        self.divisor = divisor
        self.sums: tuple[Sum, ...] = _undominated([dict(one) for one in sums]) or ({},)
        self.vectors: tuple[int, ...] = tuple(
            sorted({vector for one in self.sums for term in one for vector in term})
        )

    @cached_property
    def _evaluate(self) -> Sums:
        return Sums(renumbered(self.sums, self.vectors))

    def __call__(self, sizes: IntArray, /) -> IntArray:
        largest: IntArray = -(-self._evaluate(sizes).max(axis=0) // self.divisor)
        return largest


def renumbered(sums: Iterable[Sum], vectors: Sequence[int]) -> list[Sum]:
    """The sums whose factors are positions in ``vectors``."""
    position = {vector: i for i, vector in enumerate(vectors)}
    return [
        {tuple(position[v] for v in term): coefficient for term, coefficient in one.items()}
        for one in sums
    ]


def _undominated(sums: list[dict[tuple[int, ...], int]]) -> tuple[Sum, ...]:
    """The sums of which no other is at least as large in every term."""
    terms = {term: i for i, term in enumerate(dict.fromkeys(t for one in sums for t in one))}
    table = np.zeros((len(sums), len(terms)), dtype=np.int64)
    for row, one in enumerate(sums):
        for term, coefficient in one.items():
            table[row, terms[term]] = coefficient
    kept: list[int] = []
    for row in np.argsort(-table.sum(axis=1), kind="stable").tolist():
        # A sum of coefficients at least as large comes before those that it dominates.
        if not bool((table[kept] >= table[row]).all(axis=1).any()):
            kept.append(row)
    return tuple(sums[row] for row in sorted(kept))


def total(terms: Iterable[Term]) -> Sum:
    total: dict[tuple[int, ...], int] = {}
    for coefficient, factors in terms:
        key = tuple(sorted(factors))
        total[key] = total.get(key, 0) + coefficient
    return {key: coefficient for key, coefficient in total.items() if coefficient}
