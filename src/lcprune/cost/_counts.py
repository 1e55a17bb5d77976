"""Kept sizes of channel vectors, and sums of their products: each one sparse product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from lcprune.graph import IntArray

Sum = Mapping[tuple[int, ...], int]
"""A sum of products: the coefficient of every product of sizes, whose factors are vectors."""


class CountMatrix:
    """Kept sizes of channel vectors: ``constant + matrix @ keep``, one column for equal groups.

    Two groups that occur equally often in every vector have the same *signature*: they add
    the same to every count, so that a mask matters only through how many groups of each
    signature it keeps. ``signatures`` is the signature of each prunable group,
    ``populations`` how many groups have each.
    """

    def __init__(self, vectors: Sequence[IntArray], prunable: int) -> None:
        lengths = np.array([len(vector) for vector in vectors], dtype=np.int64)
        rows = np.repeat(np.arange(len(vectors)), lengths)
        groups = np.concatenate(vectors) if len(vectors) else np.empty(0, dtype=np.int64)
        free = (groups >= 0) & (groups < prunable)
        ones = np.ones(int(free.sum()), dtype=np.int64)
        # Built as (prunable x vectors): a row is then what a group adds to every count.
        shape = (prunable, len(vectors))
        entries = (ones, (groups[free], rows[free]))
        by_group = sparse.csr_array(entries, shape=shape)
        by_group.sum_duplicates()

        seen: dict[bytes, int] = {}
        first: list[int] = []
        self.signatures: IntArray = np.zeros(prunable, dtype=np.int64)
        for group in range(prunable):
            low, high = by_group.indptr[group], by_group.indptr[group + 1]
            key = by_group.indices[low:high].tobytes() + by_group.data[low:high].tobytes()
            if key not in seen:
                seen[key] = len(first)
                first.append(group)
            self.signatures[group] = seen[key]
        self.populations: IntArray = np.bincount(self.signatures, minlength=len(first))
        self._matrix = by_group[first].T.tocsr()
        self._constant: IntArray = lengths - self._matrix @ self.populations

    def counts(self, kept: IntArray) -> IntArray:
        """Kept channels of every vector, given the number of kept groups of each signature.

        ``kept`` is [signatures], or [signatures, n] for n masks at once.
        """
        constant = self._constant if kept.ndim == 1 else self._constant[:, None]
        counts: IntArray = constant + self._matrix @ kept
        return counts


class Sums:
    """Several sums of products of sizes, evaluated together in exact 64-bit integers.

    Factors of ``sums`` are rows of the sizes that they are evaluated for.
    """

    def __init__(self, sums: Sequence[Sum]) -> None:
        terms: dict[tuple[int, ...], int] = {}
        entries = [
            (row, terms.setdefault(tuple(sorted(factors)), len(terms)), coefficient)
            for row, one in enumerate(sums)
            for factors, coefficient in one.items()
        ]
        most = max((len(term) for term in terms), default=0)
        # Terms with fewer factors than others are filled with the last row, which is 1.
        self._factors = [
            np.array([term[i] if i < len(term) else -1 for term in terms], dtype=np.int64)
            for i in range(most)
        ]
        self._coefficients = np.zeros((len(sums), len(terms)), dtype=np.int64)
        for row, term, coefficient in entries:
            self._coefficients[row, term] += coefficient
        if len(sums) > FEW:
            self._coefficients = sparse.csr_array(self._coefficients)

    def __call__(self, sizes: IntArray) -> IntArray:
        """The sums [sums, …] for sizes [rows, …]."""
        sizes = np.concatenate([sizes, np.ones((1, *sizes.shape[1:]), dtype=np.int64)])
        products = np.ones((self._coefficients.shape[1], *sizes.shape[1:]), dtype=np.int64)
        for factor in self._factors:
            products *= sizes[factor]
        values: IntArray = self._coefficients @ products
        return values


FEW = 8
"""Up to so many sums a dense product is the faster one."""
