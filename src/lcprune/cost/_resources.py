"""What a network costs: one entry a resource, each a function of kept sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np

from lcprune.cost._counts import Sum, Sums
from lcprune.errors import BudgetError
from lcprune.graph import ChannelGraph, IntArray, Value


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

    Sums that can never be the largest are left out.
    """

    def __init__(self, sums: Iterable[Sum]) -> None:
        self.sums: tuple[Sum, ...] = _undominated([dict(one) for one in sums]) or ({},)
        self.vectors: tuple[int, ...] = tuple(
            sorted({vector for one in self.sums for term in one for vector in term})
        )

    @cached_property
    def _evaluate(self) -> Sums:
        return Sums(renumbered(self.sums, self.vectors))

    def __call__(self, sizes: IntArray, /) -> IntArray:
        largest: IntArray = self._evaluate(sizes).max(axis=0)
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


def _total(terms: Iterable[tuple[int, tuple[int, ...]]]) -> Sum:
    total: dict[tuple[int, ...], int] = {}
    for coefficient, factors in terms:
        key = tuple(sorted(factors))
        total[key] = total.get(key, 0) + coefficient
    return {key: coefficient for key, coefficient in total.items() if coefficient}


def _bytes(value: Value) -> tuple[int, tuple[int, ...]]:
    elements, factors = value.term
    return elements * value.itemsize, factors


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of convolutions and matrix products, for one sample of the example input.

    Equal to half of what ``torch.utils.flop_counter`` counts on the slimmed network, with the
    fast path of attention off and its ``math`` backend.
    """

    name: str = "macs"
    unit: str = "MACs"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        return LargestSum([_total((op.coefficient, op.factors) for op in graph.ops)])


@dataclass(frozen=True)
class Params:
    """Elements of all parameters; one that has several names counts once."""

    name: str = "params"
    unit: str = "parameters"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        return LargestSum([_total(value.term for value in graph.values if value.parameter)])


@dataclass(frozen=True)
class Weights:
    """Bytes of the ``state_dict``: parameters and persistent buffers, in their own types.

    Counters of batches are among them; a tensor that has several names counts once, and buffers
    that are not saved don't count.
    """

    name: str = "weights"
    unit: str = "B"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        return LargestSum([_total(_bytes(value) for value in graph.values if value.saved)])


@dataclass(frozen=True)
class Activations:
    """Peak bytes of activations: the most that is alive at one operator, at batch 1.

    Operators run in the order of the trace. A storage is alive from the operator that makes it to
    the last that reads it or writes into it; inputs are from the start, outputs to the end.
    Views and in-place results share a storage, whose size is that of the first value on it.
    States (parameters, buffers, constants) and what an operator uses within itself don't count.
    Attention counts as the matrix products and the softmax that it is made of.
    """

    name: str = "activations"
    unit: str = "B"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        size: dict[int, tuple[int, tuple[int, ...]]] = {}
        born: dict[int, int] = {}
        for value in graph.values:
            if value.kind != "state" and value.storage not in size:
                size[value.storage] = _bytes(value)
            elif value.kind == "state":
                size.setdefault(value.storage, (0, ()))
            if value.kind == "input":
                born[value.storage] = 0
        last: dict[int, int] = {}
        for number, op in enumerate(graph.ops):
            for position in (*op.reads, *op.writes):
                storage = graph.values[position].storage
                born.setdefault(storage, number)
                last[storage] = number
        for position in graph.outputs:
            last[graph.values[position].storage] = len(graph.ops) - 1
        alive: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in graph.ops]
        for storage, end in last.items():
            if size[storage][0]:
                for number in range(born.get(storage, 0), end + 1):
                    alive[number].append(size[storage])
        return LargestSum(_total(terms) for terms in alive)


RESOURCES: Mapping[str, Resource] = MappingProxyType(
    {entry.name: entry for entry in (Macs(), Params(), Weights(), Activations())}
)
"""Every resource that a budget can bound, by name."""


def resource_named(name: str) -> Resource:
    """The entry of ``RESOURCES``; ``BudgetError`` in one line that lists them for another name."""
    if name not in RESOURCES:
        known = ", ".join(RESOURCES)
        raise BudgetError(f"budget on unknown resource {name!r}, expected one of {known}")
    return RESOURCES[name]
