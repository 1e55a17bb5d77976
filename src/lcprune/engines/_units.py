"""What is timed of a network: operators in a row that an engine computes in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from lcprune.cost import is_elementwise
from lcprune.graph import Axis, ChannelGraph, IntArray, Op

FREE = frozenset({
    "_to_copy", "_unsafe_view", "alias", "clone", "contiguous", "detach", "dropout", "empty",
    "expand", "flatten", "lift_fresh", "reshape", "squeeze", "t", "to", "unflatten", "unsqueeze",
    "view",
})  # fmt: skip
"""What moves nothing in a network that was made ready for an engine."""
_FOLLOW_WIDTHS = ("size", "pad", "split_sizes", "split_size", "normalized_shape")
"""Settings that shapes say as well, and that change with them."""
_CONTRACTION = "convolution"
_FEWEST = 4
"""Channels that are converted."""
BLOCK = 16
"""Channels that fill the blocks of every engine: they have 4, 8 or 16."""

Size = tuple[int, int]
"""Of the whole network, and the slot whose width it follows; -1 for none."""
Role = Mapping[int, int]
"""Which dimensions of a tensor are channels, and the slot of each; -1 is the last."""


@dataclass(frozen=True)
class Node:
    """An operator of PyTorch's: positions of what it reads and writes, and its settings."""

    kind: str
    reads: tuple[int, ...]
    write: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operator:
    """The smallest network that has a unit: float32 tensors by position, and nodes in order.

    ``inputs`` are the positions of what it is given, ``states`` those of its weights. What the last
    node writes is its output.
    """

    shapes: tuple[tuple[int, ...], ...]
    inputs: tuple[int, ...]
    states: tuple[int, ...]
    nodes: tuple[Node, ...]

    @property
    def output(self) -> int:
        return self.nodes[-1].write


@dataclass(frozen=True, eq=False)
class Unit:
    """A contraction with what is computed in the same pass, or whatever else takes time.

    A batch norm of stored statistics right behind it is folded, and element by element operators
    that alone read a result follow in the same pass. A unit has a slot for each width that its
    time depends on: of a contraction its input's and its output's channels, of what is grouped and
    of all else the output's. ``vectors`` are their positions in ``ChannelGraph.vectors``, none
    where the size never changes; ``full`` their sizes, ``quanta`` what these are multiples of.
    ``key`` is the same for units that take equally long at equal widths, whatever their full ones.
    """

    key: str
    module: str
    vectors: tuple[int | None, ...]
    full: tuple[int, ...]
    quanta: tuple[int, ...]
    sizes: tuple[tuple[Size, ...], ...]
    inputs: tuple[int, ...]
    states: tuple[int, ...]
    nodes: tuple[Node, ...]

    def at(self, widths: tuple[int, ...]) -> Operator:
        """The unit with so many channels in each of its slots."""
        shapes = [
            tuple(
                whole if slot < 0 else max(1, round(whole * widths[slot] / self.full[slot]))
                for whole, slot in sizes
            )
            for sizes in self.sizes
        ]
        nodes = list(self.nodes)
        for number, node in enumerate(nodes):
            groups = node.settings.get("groups", 1)
            if node.kind == _CONTRACTION and groups > 1:
                x, weight = node.reads[:2]
                if self.sizes[weight][1][1] < 0:  # whole groups go
                    groups = max(1, round(groups * widths[0] / self.full[0])) if widths else groups
                else:
                    inner = max(1, shapes[x][1] // groups)
                    shapes[weight] = (shapes[weight][0], inner, *shapes[weight][2:])
                nodes[number] = Node(
                    node.kind, node.reads, node.write, {**node.settings, "groups": groups}
                )
        return Operator(tuple(shapes), self.inputs, self.states, tuple(nodes))

    def ends(self, widths: IntArray) -> IntArray:
        """The elements [ends, n] of inputs and output of a convolution at widths [n, slots].

        Engines keep what is between two convolutions in blocks of channels, and convert it where a
        network begins and ends. Images, of fewer than four channels, are read as they are: 0. So
        are those of a grouped convolution that doesn't fill blocks; it is measured without what a
        network has to convert for it, which is why its elements are negative.
        """
        found: list[IntArray] = []
        for position in (*self.inputs, self.nodes[-1].write):
            sizes = self.sizes[position]
            if self.nodes[0].kind != _CONTRACTION or len(sizes) < 3:
                continue
            shape = [
                np.full(len(widths), whole)
                if slot < 0
                else np.maximum(1, np.rint(whole * widths[:, slot] / self.full[slot])).astype(int)
                for whole, slot in sizes
            ]
            found.append(np.prod(shape, axis=0) * (shape[1] >= _FEWEST))
        elements = np.array(found, dtype=np.int64).reshape(len(found), len(widths))
        if self.nodes[0].settings.get("groups", 1) > 1:
            elements[:, widths[:, 0] % BLOCK != 0] *= -1
        return elements

    def grid(self, slot: int) -> tuple[int, ...]:
        """The widths of a slot that are timed, ascending, the last one the full one."""
        quantum, full = self.quanta[slot], self.full[slot]
        if self.vectors[slot] is None:
            return (full,)
        return tuple(quantum * n for n in steps(full // quantum))


@cache
def steps(full: int) -> tuple[int, ...]:
    """Multiples of 4 below 32, of 8 below 128, of 32 above, and ``full`` itself."""
    found = [*range(4, 32, 4), *range(32, 128, 8), *range(128, full + 1, 32)]
    return (*(n for n in found if n < full), full)


def units(graph: ChannelGraph, batch: int = 1) -> tuple[Unit, ...]:
    """The units of a network in order of execution, one for each time that it runs."""
    return tuple(_Reader(graph, batch).units())


class _Reader:
    def __init__(self, graph: ChannelGraph, batch: int) -> None:
        self._graph = graph
        self._values = graph.values
        self._free = [_is_free(vector, graph.prunable) for vector in graph.vectors]
        first = next((v for v in graph.values if v.kind == "input" and v.axes), None)
        self._batch = batch
        self._traced = first.axes[0].size if first is not None else 1
        self._constant = {p for p, value in enumerate(graph.values) if value.kind == "state"}

    def units(self) -> Iterator[Unit]:
        for chain in self._chains():
            yield self._unit(chain)

    def _chains(self) -> list[list[Op]]:
        """Operators that take time, those in one pass together."""
        values = self._values
        readers = Counter(p for op in self._graph.ops for p in set(op.reads))
        readers.update(self._graph.outputs)
        chains: list[list[Op]] = []
        tails: dict[int, list[Op]] = {}
        for op in self._graph.ops:
            if all(p in self._constant for p in op.reads):
                self._constant.update(op.writes)
                continue
            if not op.writes or _plain(op.kind) in FREE:
                continue
            main = op.writes[0]
            alone = [
                p
                for p in op.reads
                if p in tails and readers[p] == 1 and values[p].term == values[main].term
            ]
            if alone and is_elementwise(op):
                # Engines add to what a contraction made last; the others are there before.
                chain = tails.pop(max(alone, key=lambda p: (tails[p][0].coefficient > 0, p)))
                chain.append(op)
            else:
                chain = [op]
                chains.append(chain)
            tails[main] = chain
        return chains

    def _unit(self, chain: list[Op]) -> Unit:
        first = chain[0]
        slots = self._slots(first)
        sizes: list[tuple[Size, ...]] = []
        number: dict[int, int] = {}
        inputs: list[int] = []
        states: list[int] = []

        def position(value: int, role: Role) -> int:
            if value not in number:
                number[value] = len(sizes)
                sizes.append(self._sizes(value, slots, role, parts=not first.coefficient))
            return number[value]

        nodes: list[Node] = []
        texts: list[str] = []
        for op in chain:
            if nodes and op is chain[1] and first.coefficient and "batch_norm" in op.kind:
                number[op.writes[0]] = nodes[0].write  # folded
                continue
            reads, shown = [], []
            for place, value in enumerate(op.reads):
                made = value in number
                at = position(value, self._role(op, place))
                reads.append(at)
                if not made:
                    (states if value in self._constant else inputs).append(at)
                if not (op is first and op.kind == "convolution" and place == 2):
                    # Whether there is a bias is no part of a key: a folded norm leaves one anyway.
                    shown.append("~" if made else _shape(sizes[at], slots))
            write = position(op.writes[0], self._role(op, -1))
            settings = dict(op.settings)
            nodes.append(Node(_plain(op.kind), tuple(reads), write, settings))
            told = [
                f"{name}={value}"
                for name, value in settings.items()
                if name not in _FOLLOW_WIDTHS
                and not (name == "groups" and value > 1 and sizes[reads[1]][1][1] < 0)
            ]
            result = _shape(sizes[write], slots)
            texts.append(" ".join([f"{nodes[-1].kind}({', '.join(shown)})->{result}", *told]))
        return Unit(
            key="; ".join(texts),
            module=first.module,
            vectors=tuple(axis.vector for axis in slots),
            full=tuple(axis.size for axis in slots),
            quanta=tuple(self._quantum(first, axis) for axis in slots),
            sizes=tuple(sizes),
            inputs=tuple(inputs),
            states=tuple(states),
            nodes=tuple(nodes),
        )

    def _axis(self, value: int, dim: int) -> Axis:
        """A dimension, without its vector where none of that can go."""
        axis = self._values[value].axes[dim]
        free = axis.vector is not None and self._free[axis.vector]
        return axis if free else Axis(axis.size)

    def _role(self, op: Op, place: int) -> Role:
        """What dimensions of what an operator reads at a place, or writes at -1, are channels."""
        kind = _plain(op.kind)
        if kind == "convolution":
            settings = dict(op.settings)
            if settings.get("groups", 1) > 1:
                return {-1: {1: -1}, 0: {1: -1}, 1: {0: -1}, 2: {0: -1}}[place]
            weight = {0: 0, 1: -1} if settings.get("transposed") else {0: -1, 1: 0}
            return {-1: {1: -1}, 0: {1: 0}, 1: weight, 2: {0: -1}}[place]
        if kind == "addmm":
            return {-1: {1: -1}, 0: {0: -1}, 1: {1: 0}, 2: {0: 0, 1: -1}}[place]
        value = op.writes[0] if place < 0 else op.reads[place]
        rank = len(self._values[value].axes)
        if op.coefficient or not rank:
            return {}
        return {1 if rank > 2 else rank - 1: -1}

    def _slots(self, op: Op) -> tuple[Axis, ...]:
        """The dimensions whose sizes a unit is timed for."""
        written = self._values[op.writes[0]].axes
        if _plain(op.kind) in ("convolution", "addmm"):
            x = op.reads[0 if op.kind == "convolution" else 1]
            both = (self._axis(x, 1), self._axis(op.writes[0], 1))
            return both if dict(op.settings).get("groups", 1) == 1 else both[1:]
        found = [
            self._axis(value, dim)
            for value in (*[p for p in op.reads if p not in self._constant][:1], *op.writes[:1])
            for dim in range(len(self._values[value].axes))
        ]
        free = list({axis.vector: axis for axis in found if axis.vector is not None}.values())
        if op.coefficient:
            return (free[0], free[-1]) if len(free) > 1 else tuple(free)
        own = [self._axis(op.writes[0], dim) for dim in range(len(written))]
        chosen = [axis for axis in own if axis.vector is not None] or free
        if chosen:
            return tuple(chosen[:1])
        return tuple(own[dim] for dim in self._role(op, -1))

    def _sizes(
        self, value: int, slots: tuple[Axis, ...], role: Role, *, parts: bool
    ) -> tuple[Size, ...]:
        found: list[Size] = []
        for dim in range(len(self._values[value].axes)):
            axis = self._axis(value, dim)
            size, slot = axis.size, -1
            of = slots[role[dim]] if dim in role and slots else None
            # Whether channels may go is no part of a key; a single one is that of a broadcast.
            stays = axis.vector is None and (of is None or of.size == size or (parts and size > 1))
            if of is not None and (of == axis or stays):
                slot = role[dim] % len(slots)
            elif axis.vector is not None and slots:
                # What is no slot itself goes along with the last one.
                vectors = [each.vector for each in slots]
                slot = vectors.index(axis.vector) if axis.vector in vectors else len(slots) - 1
            elif dim == 0 and value not in self._constant and size % max(self._traced, 1) == 0:
                size = size // max(self._traced, 1) * self._batch
            found.append((size, slot))
        return tuple(found)

    def _quantum(self, op: Op, axis: Axis) -> int:
        """What all sizes of a slot are multiples of."""
        if axis.vector is None:
            return 1
        channels = self._graph.vectors[axis.vector]
        counts = np.bincount(channels[(channels >= 0) & (channels < self._graph.prunable)])
        fixed = len(channels) - int(counts.sum())
        quantum = int(np.gcd.reduce([*counts, fixed]))  # 0 changes none
        groups = dict(op.settings).get("groups", 1) if op.coefficient else 1
        if groups > 1 and len(op.reads) > 1:
            varies = self._axis(op.reads[1], 1).vector is not None
            own = groups if varies else len(channels) // groups
            quantum = int(np.lcm(quantum, own))
        return quantum if len(channels) % quantum == 0 else 1


def _shape(sizes: tuple[Size, ...], slots: tuple[Axis, ...]) -> str:
    """``1xAx16x16``; what goes along with a slot in another proportion has that before it."""
    parts = []
    for size, slot in sizes:
        if slot < 0:
            parts.append(str(size))
            continue
        full = slots[slot].size
        parts.append("AB"[slot] if size == full else f"{size}/{full}{'AB'[slot]}")
    return "x".join(parts) or "number"


def _is_free(vector: IntArray, prunable: int) -> bool:
    return bool(((vector >= 0) & (vector < prunable)).any())


def _plain(kind: str) -> str:
    """Without the mark of what is computed in place."""
    return kind.removesuffix("_")
