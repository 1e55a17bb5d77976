"""What a network costs: one entry a resource, each a function of kept sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lcprune.cost._bound import BoundCost, LargestSum, Resource, Term, total
from lcprune.cost._energy import Energy, in_bytes
from lcprune.errors import BudgetError
from lcprune.graph import ChannelGraph


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of convolutions and matrix products, for one sample of the example input.

    Equal to half of what ``torch.utils.flop_counter`` counts on the slimmed network, with the
    fast path of attention off and its ``math`` backend.
    """

    name: str = "macs"
    unit: str = "MACs"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        return LargestSum([total((op.coefficient, op.factors) for op in graph.ops)])


@dataclass(frozen=True)
class Params:
    """Elements of all parameters; one that has several names counts once."""

    name: str = "params"
    unit: str = "parameters"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        return LargestSum([total(value.term for value in graph.values if value.parameter)])


@dataclass(frozen=True)
class Weights:
    """Bytes of the ``state_dict``: parameters and persistent buffers, in their own types.

    Counters of batches are among them; a tensor that has several names counts once, and buffers
    that are not saved don't count.
    """

    name: str = "weights"
    unit: str = "B"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        return LargestSum([total(in_bytes(value) for value in graph.values if value.saved)])


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
        size: dict[int, Term] = {}
        born: dict[int, int] = {}
        for value in graph.values:
            if value.kind != "state" and value.storage not in size:
                size[value.storage] = in_bytes(value)
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
        alive: list[list[Term]] = [[] for _ in graph.ops]
        for storage, end in last.items():
            if size[storage][0]:
                for number in range(born.get(storage, 0), end + 1):
                    alive[number].append(size[storage])
        return LargestSum(total(terms) for terms in alive)


@dataclass(frozen=True)
class Latency:
    """Time of a batch on an engine: what a budget may bound, and a table of operators tells.

    This entry knows its unit and no times: a ``lcprune.engines.LatencyTable`` stands for it among
    the ``resources`` of ``rank`` and ``search``.
    """

    name: str = "latency"
    unit: str = "ns"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        raise BudgetError(
            "latency needs a table of operator times, expected one among the resources, as"
            " lcprune.measure gives it (--engine NAME on the command line)"
        )


RESOURCES: Mapping[str, Resource] = MappingProxyType(
    {
        entry.name: entry
        for entry in (Macs(), Params(), Weights(), Activations(), Energy(), Latency())
    }
)
"""Every resource that a budget can bound, by name."""


def resource_named(name: str) -> Resource:
    """The entry of ``RESOURCES``; ``BudgetError`` in one line that lists them for another name."""
    if name not in RESOURCES:
        known = ", ".join(RESOURCES)
        raise BudgetError(f"budget on unknown resource {name!r}, expected one of {known}")
    return RESOURCES[name]
