"""The energy of a network: what it computes and what it moves, at a price each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cache
from math import prod
from types import MappingProxyType

from lcprune._checks import integer, number, path, refused
from lcprune._files import read_toml
from lcprune._text import shown
from lcprune.cost._bound import BoundCost, LargestSum, Term, total
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, Op, Value

_DIGITS = 6
"""Of a pJ, where 64 bits hold them: coefficients are exact to that."""
_LARGEST = 2**62
_MOST = 1e12


@dataclass(frozen=True)
class Energy:
    """Energy of one sample in pJ: MACs · ``mac`` + (weight bytes + bytes moved) · ``byte``.

    ``mac`` is in pJ a multiply-add, ``byte`` in pJ a byte; both at least 0, and one above. Weights
    are those of the resource ``weights``, each moved once. Every operator reads its activations and
    writes its results, with two exceptions: views move nothing, and what an engine computes in one
    pass is one operator. An activation whose only reader is element by element (or a batch norm of
    stored statistics) is therefore handed on to it and never moved.

    ``element_bytes`` is the most that an element takes (1 for int8); none is what it has in the
    network. Amounts are exact and rounded up to whole pJ. ``InputError`` for coefficients out of
    range.

    Source of the default (float32, everything from DRAM) and of ``PRESETS``: Horowitz, "Computing's
    energy problem (and what we can do about it)", ISSCC 2014, 45 nm at 0.9 V. A float32 multiply is
    3.7 pJ and an add 0.9, in float16 1.1 and 0.4; an int8 multiply is 0.2 and an int32 add 0.1. Of
    32 bits DRAM takes 640 pJ (the lower end of 1.3 to 2.6 nJ for 64 bits), an SRAM of 8 KB 5.

    Example:
        lp.rank(graph, saliency, lp.Budget(energy="3mJ"), resources=[lp.Energy(mac=0.9, byte=20)])
    """

    mac: float = 4.6
    byte: float = 160.0
    element_bytes: int | None = None
    name = "energy"
    unit = "pJ"

    def __post_init__(self) -> None:
        for key in ("mac", "byte"):
            object.__setattr__(self, key, number(key, getattr(self, key), 0, _MOST))
        if self.element_bytes is not None:
            integer("element_bytes", self.element_bytes, 1, 16)
        if self.mac == self.byte == 0:
            raise InputError("mac and byte are both 0, expected a price for one of them")

    def bind(self, graph: ChannelGraph) -> BoundCost:
        macs = total((op.coefficient, op.factors) for op in graph.ops)
        saved = (in_bytes(v, self.element_bytes) for v in graph.values if v.saved)
        bytes_ = total([*saved, *_moved(graph, self.element_bytes)])
        prices: dict[tuple[int, ...], Fraction] = {}
        for price, amounts in ((self.mac, macs), (self.byte, bytes_)):
            for term, coefficient in amounts.items():
                # Through text, so that 0.3 is 3/10 and not the nearest binary fraction.
                prices[term] = prices.get(term, Fraction()) + Fraction(str(price)) * coefficient
        return priced(prices, graph)


PRESETS: Mapping[str, Energy] = MappingProxyType(
    {
        "float32-dram": Energy(),
        "float16-dram": Energy(1.5, 160, 2),
        "int8-dram": Energy(0.3, 160, 1),
        "float32-sram": Energy(4.6, 1.25),
        "float16-sram": Energy(1.5, 1.25, 2),
        "int8-sram": Energy(0.3, 1.25, 1),
    }
)
"""Coefficients of Horowitz, ISSCC 2014, 45 nm, by type of number and where everything is kept."""


def read_energy(text: str) -> Energy:
    """The preset of that name, or what a TOML file says with the fields of ``Energy`` as keys.

    Raises ``InputError`` for what is neither, an unknown key and coefficients out of range.
    """
    if isinstance(text, str) and text in PRESETS:
        return PRESETS[text]
    if not isinstance(text, str) or not text.endswith(".toml"):
        raise refused("energy", text, f"a file.toml or one of {', '.join(PRESETS)}")
    file = path("energy", text)
    values = read_toml(file)
    known = [field.name for field in fields(Energy)]
    for key in values:
        if key not in known:
            raise InputError(f"unknown key {shown(key)} in {file}, expected {', '.join(known)}")
    for key in ("mac", "byte"):
        if key not in values:
            raise InputError(f"{file} has no {key}, expected it in pJ")
    try:
        return Energy(**values)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def priced(prices: Mapping[tuple[int, ...], Fraction], graph: ChannelGraph) -> LargestSum:
    """The sum of products of sizes, each at its price in pJ; ``InputError`` beyond 64 bits."""
    sizes = [len(vector) for vector in graph.vectors]
    whole = sum(price * prod(sizes[v] for v in term) for term, price in prices.items())
    if whole >= _LARGEST:
        raise InputError("the network's energy is beyond all measure, expected smaller prices")
    scale = 10**_DIGITS
    while whole * scale >= _LARGEST:
        scale //= 10
    return LargestSum([{term: round(price * scale) for term, price in prices.items()}], scale)


def in_bytes(value: Value, most: int | None = None) -> Term:
    """The bytes of a value, of at most so many an element."""
    elements, factors = value.term
    return elements * min(value.itemsize, most or value.itemsize), factors


def _moved(graph: ChannelGraph, most: int | None) -> Iterator[Term]:
    """The bytes of activations that every operator reads and writes."""
    values = graph.values
    states = {value.storage for value in values if value.kind == "state"}
    moving = [op for op in graph.ops if not _is_view(op, values)]
    handed = _handed_on(graph, moving)
    for op in moving:
        for position in (*dict.fromkeys(op.reads), *op.writes):
            if position not in handed and values[position].storage not in states:
                yield in_bytes(values[position], most)


def _handed_on(graph: ChannelGraph, moving: Iterable[Op]) -> set[int]:
    """Activations that only the next operator reads, in the same pass as they are made."""
    made: set[int] = set()
    handed: set[int] = set()
    readers = Counter(position for op in graph.ops for position in set(op.reads))
    readers.update(graph.outputs)
    for op in moving:
        if op.writes and is_elementwise(op):
            size = _size(graph.values[op.writes[0]])
            alone = [
                position
                for position in op.reads
                if position in made
                and readers[position] == 1
                and _size(graph.values[position]) == size
            ]
            if alone:  # of several the one that was made last: the others wait in memory
                handed.add(max(alone))
        made.update(op.writes)
    return handed


def _size(value: Value) -> Term:
    elements, factors = value.term
    return elements, tuple(sorted(factors))


def _is_view(op: Op, values: tuple[Value, ...]) -> bool:
    """Whether all that is written is part of what is read, and the name tells of no writing."""
    read = {values[position].storage for position in op.reads}
    return not op.kind.endswith("_") and all(values[p].storage in read for p in op.writes)


def is_elementwise(op: Op) -> bool:
    """Whether an engine computes it in one pass with what is before it."""
    if "batch_norm" in op.kind:  # a constant scale and shift, unless statistics are taken first
        return not dict(op.settings).get("training")
    return _is_pointwise(op.kind)


@cache
def _is_pointwise(kind: str) -> bool:
    import torch

    from lcprune.tracing import is_pointwise

    packet = getattr(torch.ops.aten, kind, None) if kind.isidentifier() else None
    overloads = packet.overloads() if packet is not None else ()
    return any(is_pointwise(getattr(packet, overload)) for overload in overloads)
