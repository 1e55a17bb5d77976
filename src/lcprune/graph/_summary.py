"""A channel graph for people: its families, and what stays, why, and how much that costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lcprune.graph._graph import ChannelGraph, IntArray

LAYERS = 3
"""How many layers a sentence names."""


@dataclass
class Staying:
    """What filters cost that stay for one reason, in the whole network."""

    reason: str
    macs: int = 0
    params: int = 0
    filters: int = 0
    tensors: list[str] = field(default_factory=list)

    @property
    def layers(self) -> str:
        """The first layers, by name."""
        names = [*dict.fromkeys(t.removesuffix(".weight") for t in self.tensors)]
        return ", ".join(names[:LAYERS]) + (", …" if len(names) > LAYERS else "")


def staying(graph: ChannelGraph) -> list[Staying]:
    """What stays, by reason, the largest MACs first.

    A filter's MACs are those of the operators that read its weight, its parameters those of this
    weight, in equal parts.
    """
    macs = _macs_of_weights(graph)
    sizes = {value.name: prod(value.shape) for value in graph.values if value.parameter}
    found: dict[str, Staying] = {}
    counted: set[tuple[str, str]] = set()
    for entry in graph.untouched:
        one = found.setdefault(entry.reason, Staying(entry.reason))
        one.filters += entry.count
        one.tensors.append(entry.tensor)
        if (entry.tensor, entry.reason) not in counted:  # a weight with filters in two dimensions
            counted.add((entry.tensor, entry.reason))
            one.macs += macs.get(entry.tensor, 0) * entry.count // entry.size
            one.params += sizes.get(entry.tensor, 0) * entry.count // entry.size
    return sorted(found.values(), key=lambda one: (-one.macs, -one.params, -one.filters))


def uncounted_sentence(graph: ChannelGraph) -> str:
    """What no budget holds, in a sentence; empty where everything is counted."""
    if not graph.uncounted:
        return ""
    named = ", ".join(graph.uncounted[:LAYERS]) + (", …" if len(graph.uncounted) > LAYERS else "")
    kept = [u.tensor for u in graph.untouched if u.reason.removeprefix("no rule for ") in
            graph.uncounted]  # fmt: skip
    filters = f"; the filters of {', '.join(kept[:LAYERS])} stay" if kept else ""
    return f"not counted, so in no budget: what {named} computes{filters}"


def quantity(count: int, unit: str = "") -> str:
    """A count for people: 125.75 M, or 1.50 MiB of bytes, 1.50 mJ of pJ, 1.50 ms of ns."""
    if unit == "B":
        for name, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if count >= size:
                return f"{count / size:.2f} {name}"
        return f"{count} B"
    if unit == "pJ":
        for name, size in (("J", 10**12), ("mJ", 10**9), ("uJ", 10**6), ("nJ", 10**3)):
            if count >= size:
                return f"{count / size:.2f} {name}"
        return f"{count} pJ"
    if unit == "ns":
        for name, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
            if count >= size:
                return f"{count / size:.2f} {name}"
        return f"{count} ns"
    for name, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {name}"
    return str(count)


def summary(graph: ChannelGraph) -> str:
    """Families with their sizes and costs, and all that stays with its reason, as plain text."""
    macs = sum(_sum(graph, [len(v) for v in graph.vectors], "macs"))
    params = sum(_sum(graph, [len(v) for v in graph.vectors], "params"))
    parts = [
        f"{quantity(macs)} MACs (multiply-adds of convolutions and matrix products, one sample), "
        f"{quantity(params)} parameters",
        f"{graph.prunable} prunable channel groups in {len(graph.families)} families; "
        "a family has one compensation",
        *_families(graph, macs, params),
        *_untouched(graph, macs),
    ]
    if graph.free_outputs:
        parts.append(f"outputs that may shrink: {', '.join(map(repr, graph.free_outputs))}")
    elif any(u.reason.startswith("output ") for u in graph.untouched):
        parts.append("an output may shrink where trace(…, outputs={NAME: 'free'}) says so")
    if graph.training_error:
        parts.append(f"the forward in training mode was not followed: {graph.training_error}")
    parts += [f"not counted: {name}" for name in graph.uncounted]
    return "\n".join([*parts, *graph.notes])


def _families(graph: ChannelGraph, macs: int, params: int) -> list[str]:
    if not graph.families:
        return []
    first = np.full(graph.prunable, -1, dtype=np.int64)
    for family in graph.families:
        first[family.groups[0]] = family.id
    one = [_without(graph, first, of) for of in ("macs", "params")]
    every = _without(graph, graph.family_of, "macs")
    rows = [("family", "groups", "tensors", "MACs each", "params each", "of all MACs")]
    for family in graph.families:
        rows.append((
            family.name,
            str(len(family.groups)),
            str(len({tensor for tensor, _ in family.dimensions})),
            quantity(macs - int(one[0][family.id])),
            quantity(params - int(one[1][family.id])),
            f"{(macs - int(every[family.id])) / max(macs, 1):.1%}",
        ))  # fmt: skip
    return ["", "Families", *_table(rows, numbers=range(1, 6)), ""]


def _untouched(graph: ChannelGraph, macs: int) -> list[str]:
    if not graph.untouched:
        return []
    of = _macs_of_weights(graph)
    rows = [("tensor", "dim", "channels", "of all MACs", "reason")]
    for entry in graph.untouched:
        share = of.get(entry.tensor, 0) * entry.count / entry.size / max(macs, 1)
        count = f"{entry.count} of {entry.size}"
        rows.append((entry.tensor, str(entry.dim), count, f"{share:.1%}", entry.reason))
    return ["Not prunable", *_table(rows, numbers=(1, 2, 3)), ""]


def _table(rows: Sequence[tuple[str, ...]], numbers: Iterable[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = set(numbers)
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines[:1])), *lines[1:]]


def _terms(graph: ChannelGraph, of: str) -> list[tuple[int, tuple[int, ...]]]:
    """Coefficients and factors whose products add up to the MACs, or the parameters."""
    if of == "macs":
        return [(op.coefficient, op.factors) for op in graph.ops if op.coefficient]
    return [value.term for value in graph.values if value.parameter]


def _sum(graph: ChannelGraph, sizes: Sequence[int], of: str) -> list[int]:
    return [
        coefficient * prod(sizes[factor] for factor in factors)
        for coefficient, factors in _terms(graph, of)
    ]


def _without(graph: ChannelGraph, family_of: IntArray, of: str) -> IntArray:
    """The cost [families] without the groups that ``family_of`` gives each family."""
    count = len(graph.families)
    table = np.concatenate([family_of, np.full(len(graph.pinned_reasons) + 1, -1)])
    sizes = {}
    total = np.zeros(count, dtype=np.int64)
    for coefficient, factors in _terms(graph, of):
        product = np.full(count, coefficient, dtype=np.int64)
        for factor in factors:
            if factor not in sizes:
                families = table[graph.vectors[factor]]
                gone = np.bincount(families[families >= 0], minlength=count)
                sizes[factor] = len(graph.vectors[factor]) - gone
            product *= sizes[factor]
        total += product
    return total


def _macs_of_weights(graph: ChannelGraph) -> dict[str, int]:
    """The MACs of the operators that read each tensor with filters, or a view of it."""
    names: dict[int, str] = {}
    made = {tensor for tensor, _ in graph.producers}
    for value in graph.values:
        if value.name in made:
            names.setdefault(value.storage, value.name)
    macs: dict[str, int] = {}
    for op in graph.ops:
        if not op.coefficient:
            continue
        cost = op.coefficient * prod(len(graph.vectors[factor]) for factor in op.factors)
        storages = (graph.values[position].storage for position in op.reads)
        for name in {names[storage] for storage in storages if storage in names}:
            macs[name] = macs.get(name, 0) + cost
    return macs
