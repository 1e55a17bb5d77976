"""MACs and parameters of a pruned network in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lcprune.cost._counts import CountMatrix
from lcprune.errors import InputError
from lcprune.graph import BoolArray, ChannelGraph, IntArray, Op


class CostModel:
    """The cost of any choice of channels, in microseconds, without building a network.

    Every counted operation costs ``coefficient * prod(kept channels of each factor)``: a
    convolution, for one, kernel positions x output positions x input channels x filters. The
    counts are linear in the mask, so that a cost is one sparse product, one elementwise
    product and one sum, all in exact 64-bit integers.

    Units: ``macs`` is multiply-adds of convolutions and matrix products for one sample of the
    traced example input; ``params`` is elements of parameters.

    ``signatures`` is the cost signature of each prunable group: groups with the same one are
    interchangeable to every cost. ``populations`` is how many groups have each.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._graph = graph
        counted = (*graph.ops, *graph.parameters)
        used = sorted({factor for op in counted for factor in op.factors})
        position = {vector: i for i, vector in enumerate(used)}
        self._matrix = CountMatrix([graph.vectors[vector] for vector in used], graph.prunable)
        self._position = position
        self.signatures: IntArray = self._matrix.signatures
        self.populations: IntArray = self._matrix.populations

        resources = {"macs": graph.ops, "params": graph.parameters}
        self.resources: tuple[str, ...] = tuple(resources)
        terms: dict[tuple[int, ...], int] = {}
        entries: list[tuple[int, int, int]] = []
        for row, ops in enumerate(resources.values()):
            for op in ops:
                factors = tuple(sorted(position[factor] for factor in op.factors))
                entries.append((row, terms.setdefault(factors, len(terms)), op.coefficient))
        self._factors = _columns(list(terms), empty=len(used))
        self._coefficients = np.zeros((len(resources), len(terms)), dtype=np.int64)
        for row, term, coefficient in entries:
            self._coefficients[row, term] += coefficient

    def evaluate(self, keep: BoolArray | None = None) -> dict[str, int]:
        """Cost by resource name; ``keep`` is bool [prunable], none means that all stay.

        Raises ``InputError`` where ``keep`` has another length or type.
        """
        costs = self.of_counts(self._kept(keep))
        return {name: int(costs[i]) for i, name in enumerate(self.resources)}

    def of_counts(self, kept: IntArray) -> IntArray:
        """Costs [resources], given the number of kept groups of each signature.

        ``kept`` is [signatures], or [signatures, n] for n masks at once: then [resources, n].
        """
        counts = self._matrix.counts(kept)
        counts = np.concatenate([counts, np.ones_like(counts[:1])])
        products = np.ones((self._coefficients.shape[1], *kept.shape[1:]), dtype=np.int64)
        for factor in self._factors:
            products *= counts[factor]
        costs: IntArray = self._coefficients @ products
        return costs

    def by_op(self, keep: BoolArray | None = None) -> dict[str, int]:
        """MACs by module name, in the order of execution; a module used twice counts twice."""
        counts = self._matrix.counts(self._kept(keep))
        macs: dict[str, int] = {}
        for op in self._graph.ops:
            macs[op.module] = macs.get(op.module, 0) + self._one(op, counts)
        return macs

    def _one(self, op: Op, counts: IntArray) -> int:
        value = op.coefficient
        for factor in op.factors:
            value *= int(counts[self._position[factor]])
        return value

    def _kept(self, keep: BoolArray | None) -> IntArray:
        if keep is None:
            return self.populations
        check_mask(keep, self._graph.prunable)
        return np.bincount(self.signatures[keep], minlength=len(self.populations))


def check_mask(keep: BoolArray, prunable: int) -> None:
    """Raise ``InputError`` unless ``keep`` is a bool array with an entry for each group."""
    if keep.dtype != np.bool_ or keep.shape != (prunable,):
        raise InputError(
            f"mask of {keep.dtype} {keep.shape}, expected bool ({prunable},): one per group"
        )


def _columns(terms: Sequence[tuple[int, ...]], empty: int) -> list[IntArray]:
    """Factor i of every term, for each i; terms with fewer factors are filled with ``empty``."""
    most = max((len(term) for term in terms), default=0)
    return [
        np.array([term[i] if i < len(term) else empty for term in terms], dtype=np.int64)
        for i in range(most)
    ]
