"""Latency as a resource: measured operators, and what a network of them takes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lcprune._checks import instance, integer, number, of_type, path, refused
from lcprune._files import read_sealed_json, sealed_json, write_text
from lcprune._text import shown
from lcprune.cost import BoundCost
from lcprune.engines._engine import engine_named, machine
from lcprune.engines._units import Unit, units
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, FloatArray, IntArray

Cells = Mapping[tuple[int, ...], int]
"""Nanoseconds by widths."""

SLOTS = 2
"""The most widths that a unit depends on."""
_LONGEST = 10**15
"""Of a time, in ns: above it sums would not fit into 64 bits."""
NOISE = 0.03
"""Share of what a family takes below which a difference is taken for none."""
LEAST_NOISE = 0.02
"""What is taken for noise at least, on the quietest machine."""
OTHERS = (1.0, 0.75, 0.5, 0.25)
"""Shares of their channels that all other families have where the steps of one are looked for."""


@dataclass(frozen=True)
class LatencyTable:
    """Times of operators on an engine, measured one by one: a resource in nanoseconds.

    ``times`` has the least time of a call by unit and widths, ``overhead`` that of a network
    without operators; both in ns, of a ``batch`` of samples on ``threads`` threads of the
    ``processor``. A network takes the sum of its units, each without the overhead of a call, and
    that of one call; ``factor`` is what a measurement of a whole network corrected that by.

    A time falls and rises with the width (a convolution of 30 channels may be slower than one of
    32), and who wants 30 could as well take 32. So what is bound is the lower monotone envelope
    over both widths: the least time at widths that are at least as large, up to the network's own.
    A cell that was not measured counts as the next wider one. ``noise`` is the share by which times
    of the same differ, and ``ends`` what converting so many elements takes where a call begins or
    ends, ns. ``whole`` has the measured time of whole networks, by
    ``ChannelGraph.computation``.
    """

    engine: str
    batch: int
    threads: int
    processor: str
    versions: Mapping[str, str]
    times: Mapping[str, Cells]
    overhead: int = 0
    noise: float = NOISE
    factor: float = 1.0
    ends: Mapping[str, int] = field(default_factory=dict)
    whole: Mapping[str, int] = field(default_factory=dict)
    name = "latency"
    unit = "ns"

    @property
    def untimed(self) -> tuple[str, ...]:
        """The units that the engine could not be timed at, which count nothing."""
        return tuple(key for key, cells in self.times.items() if not cells)

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", number("factor", self.factor, 0, 1e6, more_than=0))
        sizes = [int(text) if text.isdecimal() and text.isascii() else -1 for text in self.ends]
        if sizes != sorted(set(sizes)) or min(sizes, default=1) < 1:
            raise refused("ends", self.ends, "numbers of elements in ascending order")

    def bind(self, graph: ChannelGraph) -> BoundCost:
        """The time of a network of this graph; ``InputError`` for one whose units have no times."""
        return self._bound(graph)

    def rungs(self, graph: ChannelGraph) -> tuple[IntArray, ...]:
        """The numbers of groups that are worth having, by family, ascending, the last one all.

        A number is one where the network gets faster by more than the noise of the measurement
        below the next larger one, be the other families whole or at a part of their widths. Any
        number between two is as slow as the larger of them.
        """
        return tuple(self._bound(graph).rungs(self.noise))

    def scaled(self, factor: float) -> LatencyTable:
        """The table whose networks take ``factor`` times as long."""
        return replace(self, factor=self.factor * number("factor", factor, more_than=0))

    def check_machine(self) -> None:
        """``InputError`` where this machine, or its engine, is another than the table's."""
        here = machine(engine_named(self.engine))
        for what, own, other in (
            ("on the processor", self.processor, here.processor),
            ("with", _listed(self.versions), _listed(here.versions)),
        ):
            if own != other:
                raise InputError(
                    f"the latency table was measured {what} {own}, expected {other}, which is here:"
                    " measure another"
                )

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the table whole or not at all; ``RunError`` where it can't be written."""
        values: dict[str, Any] = {key: getattr(self, key) for key in _PLAIN}
        values["times"] = {
            unit: {"x".join(map(str, widths)): ns for widths, ns in cells.items()}
            for unit, cells in self.times.items()
        }
        write_text(path("file", file, of_file=True), sealed_json(values))

    @staticmethod
    def read(file: str | os.PathLike[str]) -> LatencyTable:
        """The table in a file; ``InputError`` where it is missing, damaged or something else."""
        where = path("file", file)
        values = read_sealed_json(where)
        values.pop("schema")
        times = values.pop("times", None)
        if not isinstance(times, dict) or not all(isinstance(c, dict) for c in times.values()):
            raise InputError(f"{where} is no latency table, expected what lcprune measure wrote")
        read = {unit: _cells(where, cells) for unit, cells in times.items()}
        table: LatencyTable = of_type(f"{where}", {**values, "times": {}}, LatencyTable)
        return replace(table, times=read)

    def net(self, unit: Unit) -> dict[tuple[int, ...], int]:
        """The times of a unit by widths within a network: without a call, and what is at its ends.

        At least a quarter of its time stays, whatever these are. ``Unit.ends`` says where a network
        has more to convert than the measurement.
        """
        cells = self.times.get(unit.key, {})
        widths = np.array([*cells], dtype=np.int64).reshape(len(cells), len(unit.full))
        alone = np.maximum(0, np.array([*cells.values()], dtype=np.int64) - self.overhead)
        found = alone.astype(np.float64)
        if self.ends:
            sizes, times = np.array([*map(int, self.ends)]), np.array([*self.ends.values()])
            counts = unit.ends(widths)
            amounts = np.abs(counts)
            beyond = np.maximum(1, amounts / sizes[-1])
            found -= (np.sign(counts) * beyond * np.interp(amounts, sizes, times)).sum(axis=0)
        net = np.maximum(np.rint(found).astype(np.int64), alone // 4)
        return dict(zip(cells, net.tolist(), strict=True))

    def _bound(self, graph: ChannelGraph) -> TabledTime:
        instance("the graph", graph, ChannelGraph, "a ChannelGraph, such as lcprune.trace gives")
        return TabledTime(self, graph)


_PLAIN = (
    "engine", "batch", "threads", "processor", "versions", "overhead", "noise", "factor", "ends",
    "whole",
)  # fmt: skip


def _cells(file: Path, cells: Mapping[str, Any]) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for text, ns in cells.items():
        parts = text.split("x") if text else []
        if not all(part.isdecimal() and part.isascii() for part in parts) or len(parts) > SLOTS:
            raise InputError(f"{file} has a time at {shown(text)}, expected widths such as 16x32")
        found[tuple(map(int, parts))] = integer(f"a time in {file}", ns, 0, _LONGEST)
    if len({len(widths) for widths in found}) > 1:
        raise InputError(f"{file} has times of a unit at one width and at two, expected one kind")
    return found


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "nothing"


@dataclass(frozen=True, eq=False)
class Envelope:
    """The least time [sizes of each slot + 1] at widths from the next of ``grids`` on.

    The first entry of every dimension is for no channels, which take no time.
    """

    grids: tuple[IntArray, ...]
    times: FloatArray

    def whole(self, fixed: tuple[bool, ...]) -> Envelope:
        """The times at the last width of slots that are ``fixed``, which are none then."""
        at = tuple(-1 if one else slice(None) for one in fixed)
        grids = tuple(grid for grid, one in zip(self.grids, fixed, strict=True) if not one)
        return Envelope(grids, self.times[at])

    def on(self, grids: tuple[IntArray, ...]) -> FloatArray:
        """The times on finer grids."""
        at = [
            np.append(0, 1 + np.searchsorted(own, wanted))
            for own, wanted in zip(self.grids, grids, strict=True)
        ]
        found: FloatArray = self.times[np.ix_(*at)] if at else self.times
        return found


def envelope(cells: Cells, full: tuple[int, ...]) -> Envelope | None:
    """The lower monotone envelope of measured cells up to the widths ``full``.

    None where there is no cell at ``full`` or wider.
    """
    # Wider than the network is what it may count as, where its own width was not measured.
    whole = [ns for widths, ns in cells.items() if _within(full, widths)]
    if not whole:
        return None
    own = {widths: ns for widths, ns in cells.items() if _within(widths, full)}
    own.setdefault(full, min(whole))
    grids = tuple(np.unique([widths[slot] for widths in own]) for slot in range(len(full)))
    times = np.full([len(grid) for grid in grids], np.inf)
    at = tuple(
        np.searchsorted(grid, [widths[slot] for widths in own]) for slot, grid in enumerate(grids)
    )
    times[at] = [*own.values()]
    for axis in range(times.ndim):
        times = np.flip(np.minimum.accumulate(np.flip(times, axis), axis=axis), axis)
    return Envelope(grids, np.pad(times, [(1, 0)] * times.ndim))


def _within(narrow: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in zip(narrow, wide, strict=True))


class TabledTime:
    """A bound cost: the sum of tabled times, looked up by sizes."""

    def __init__(self, table: LatencyTable, graph: ChannelGraph) -> None:
        self._graph = graph
        constant = float(table.overhead)
        terms: dict[tuple[int, ...], list[Envelope]] = {}
        missing: list[str] = []
        found: dict[tuple[str, tuple[int, ...]], Envelope | None] = {}
        for unit in units(graph, table.batch):
            if unit.key in table.times and not table.times[unit.key]:
                continue  # untimed
            at = (unit.key, unit.full)
            if at not in found:
                found[at] = envelope(table.net(unit), unit.full)
            one = found[at]
            if one is None:
                missing.append(unit.module or "the model")
                continue
            vectors = tuple(vector for vector in unit.vectors if vector is not None)
            if vectors:
                fixed = tuple(vector is None for vector in unit.vectors)
                terms.setdefault(vectors, []).append(one.whole(fixed))
            else:
                constant += float(one.times.ravel()[-1])
        if missing:
            raise InputError(
                f"the latency table has no times of {len(missing)} operators (in {missing[0]}"
                f"{', …' if len(missing) > 1 else ''}), expected one measured for this network to"
                " its end"
            )
        self.vectors: tuple[int, ...] = tuple(sorted({v for vectors in terms for v in vectors}))
        self._constant = round(constant * table.factor)
        self._terms = [_Term.of(vectors, several) for vectors, several in terms.items()]
        position = {vector: i for i, vector in enumerate(self.vectors)}
        # All tables in one, so that a call is a handful of array operations.
        looks, times = [np.zeros(1, dtype=np.int64)], [np.zeros(1, dtype=np.int64)]
        self._rows = np.zeros((2, len(self._terms)), dtype=np.int64)
        self._looks = np.zeros((2, len(self._terms), 1), dtype=np.int64)
        self._offsets = np.zeros((len(self._terms), 1), dtype=np.int64)
        filled_looks = filled_times = 1
        for number_, term in enumerate(self._terms):
            self._offsets[number_] = filled_times
            stride = 1
            for slot in reversed(range(len(term.vectors))):
                size = len(graph.vectors[term.vectors[slot]])
                look = stride * term.positions(slot, size)
                self._rows[slot, number_] = position[term.vectors[slot]]
                self._looks[slot, number_] = filled_looks
                looks.append(look)
                filled_looks += len(look)
                stride *= len(term.grids[slot]) + 1
            if len(term.vectors) == 1:  # the second look-up finds 0 at whatever size
                looks.append(np.zeros_like(look))
                self._rows[1, number_] = self._rows[0, number_]
                self._looks[1, number_] = filled_looks
                filled_looks += len(look)
            flat = np.rint(term.times * table.factor).astype(np.int64).ravel()
            times.append(flat)
            filled_times += len(flat)
        self._look = np.concatenate(looks)
        self._times = np.concatenate(times)

    def __call__(self, sizes: IntArray, /) -> IntArray:
        total: IntArray = self._constant + self._each(sizes).sum(axis=0)
        return total

    def _each(self, sizes: IntArray) -> IntArray:
        """The time of every term [terms, n]."""
        at = self._look[self._looks[0] + sizes[self._rows[0]]]
        at += self._look[self._looks[1] + sizes[self._rows[1]]]
        at += self._offsets
        found: IntArray = self._times[at]
        return found

    def rungs(self, noise: float) -> Iterator[IntArray]:
        """By family the numbers of groups that are worth having."""
        graph = self._graph
        families = len(graph.families)
        table = np.append(graph.family_of, [-1] * (len(graph.pinned_reasons) + 1))
        members = np.zeros((len(self.vectors), families))
        fixed = np.zeros(len(self.vectors))
        for row, vector in enumerate(self.vectors):
            of = table[graph.vectors[vector]]
            members[row] = np.bincount(of[of >= 0], minlength=families)
            fixed[row] = (of < 0).sum()
        for family in graph.families:
            yield self._rungs_of(len(family.groups), members, fixed, family.id, noise)

    def _rungs_of(
        self, groups: int, members: FloatArray, fixed: FloatArray, family: int, noise: float
    ) -> IntArray:
        own = np.flatnonzero(members[:, family])
        mine = np.flatnonzero(np.isin(self._rows, own).any(axis=0))
        if not len(mine):
            return np.array([groups])
        counts = np.arange(groups + 1)
        kept = {groups}
        for share in OTHERS:
            others = fixed + share * (members.sum(axis=1) - members[:, family])
            parts = members[:, family, None] * (counts / max(groups, 1))
            sizes = np.ceil(np.round(others[:, None] + parts, 6)).astype(np.int64)
            time = self._each(sizes)[mine].sum(axis=0)
            whole = time[groups] - time[0]
            level = groups
            while level > 1:
                # The widest that is faster than the last one by more than noise.
                faster = np.flatnonzero(time[1:level] <= time[level] - max(noise * whole, 1))
                if not len(faster):
                    break
                level = int(faster[-1]) + 1
                kept.add(level)
        return np.array(sorted(kept), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Term:
    """The sum of all envelopes over the same vectors."""

    vectors: tuple[int, ...]
    grids: tuple[IntArray, ...]
    times: FloatArray

    @staticmethod
    def of(vectors: tuple[int, ...], several: Sequence[Envelope]) -> _Term:
        grids = tuple(
            np.unique(np.concatenate([one.grids[slot] for one in several]))
            for slot in range(len(vectors))
        )
        return _Term(vectors, grids, np.sum([one.on(grids) for one in several], axis=0))

    def positions(self, slot: int, size: int) -> IntArray:
        """Where in the grid each size from 0 to ``size`` is found."""
        found = np.searchsorted(self.grids[slot], np.arange(1, size + 1)) + 1
        return np.append(0, found).astype(np.int64)
