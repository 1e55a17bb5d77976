"""How many channels of every vector are kept, as one sparse product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from lcprune.graph import IntArray


class CountMatrix:
    """Kept sizes of channel vectors: ``constant + matrix @ keep``, collapsed over alike groups.

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
