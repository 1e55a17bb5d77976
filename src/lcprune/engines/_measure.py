"""Latency tables are made here: the operators of a network, timed one by one on an engine."""

from __future__ import annotations

import gc
import itertools
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import nn

from lcprune._checks import function, instance, integer, number
from lcprune._checks import path as checked_path
from lcprune._files import make_directory
from lcprune.engines._capture import batched
from lcprune.engines._engine import Engine, engine_named, input_tensors, machine
from lcprune.engines._table import LEAST_NOISE, NOISE, LatencyTable
from lcprune.engines._timing import with_threads
from lcprune.engines._units import Node, Operator, Unit, units
from lcprune.errors import InputError, LcpruneError, LcpruneWarning, ModelError
from lcprune.graph import ChannelGraph
from lcprune.tracing import ExampleInput, as_examples, bake

Progress = Callable[[int, int, str], None]
"""Takes how many times of how many are measured, and what is next."""

_WARM_UP = 3
_LEAST = 8
_SECONDS = 0.008
"""How often, and how long, an operator is run at least; the least time counts."""
_EXPORT = 20.0
"""Seconds that must be left for the whole network, whose export can't be broken off."""
_SAVE = 5.0
"""Seconds between two writings of the file."""
_IDENTITY = Operator(((1, 1), (1, 1)), (0,), (), (Node("relu", (0,), 1),))
_CHANNELS = 16
_SIDES = (2, 8, 16, 32, 56, 112)
"""Of the convolutions that tell what is converted at the ends of a call: 1×1, of few channels."""


def measure(
    model: nn.Module,
    graph: ChannelGraph,
    engine: str = "onnxruntime",
    *,
    example_input: ExampleInput | None = None,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 600.0,
    path: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Time the operators of a network on an engine, at many widths: a table for ``latency``.

    ``graph`` is what ``trace`` gives of ``model``. Timed is every distinct unit (a convolution or
    matrix product with its batch norm folded and what follows element by element, and all else that
    takes time) at its whole widths first, and then at multiples of 4 below 32, of 8 below 128 and
    of 32 above of both widths, in order of what the unit takes of the network, coarse steps first.
    With time left all is timed once more, and the least counts.

    With ``example_input`` the whole network is timed too (``table.whole``), if there are some 20
    seconds left for its export. All together takes no longer than ``seconds``, but for an export
    or operator at hand; what was not reached counts as the next wider that was. ``path`` is a
    file that the table is read from, where it is there, and written to every few seconds: the same
    call goes on with it, and measures nothing again. ``progress`` is told of every step.

    Raises ``InputError`` for a file of another machine, engine, batch or threads, an engine that is
    not there or can't time operators, and where ``seconds`` don't suffice for the whole widths
    (what was measured is in the file then).
    """
    instance("the model", model, nn.Module, "a torch.nn.Module", ModelError)
    instance("the graph", graph, ChannelGraph, "a ChannelGraph, such as lcprune.trace gives")
    deadline = time.monotonic() + number("seconds", seconds, more_than=0, most=1e7)
    integer("batch", batch, 1, 2**16)
    integer("threads", threads, 1, 1024)
    if progress is not None:
        function("progress", progress)
    file = None if path is None else checked_path("path", path, of_file=True)
    chosen = engine_named(engine)
    work = _Work(chosen, graph, _begun(chosen, batch, threads, file), file, deadline, progress)
    with with_threads(threads):
        work.run(model, example_input)
    if work.table.untimed:
        named = ", ".join(sorted({key.partition("(")[0] for key in work.table.untimed}))
        warnings.warn(
            f"{engine} was not timed at {named}: not counted in any latency",
            LcpruneWarning,
            stacklevel=2,
        )
    return work.table


def _begun(engine: Engine, batch: int, threads: int, file: Path | None) -> LatencyTable:
    """What is in the file, or an empty table."""
    here = machine(engine)
    if file is None or not file.exists():
        table = LatencyTable(engine.name, batch, threads, here.processor, here.versions, {})
        if file is not None:  # where it can't be written, that is told before an hour is spent
            make_directory(file.parent)
            table.save(file)
        return table
    table = LatencyTable.read(file)
    for what, own, other in (
        ("engine", table.engine, engine.name),
        ("batch", table.batch, batch),
        ("threads", table.threads, threads),
    ):
        if own != other:
            raise InputError(f"{file} is a table of {what} {own}, expected {other}")
    table.check_machine()
    return table


@dataclass(frozen=True)
class _Cell:
    unit: Unit
    widths: tuple[int, ...]


class _Work:
    """A table that grows."""

    def __init__(
        self,
        engine: Engine,
        graph: ChannelGraph,
        table: LatencyTable,
        file: Path | None,
        deadline: float,
        progress: Progress | None,
    ) -> None:
        self._engine = engine
        self._graph = graph
        self._file = file
        self._deadline = deadline
        self._progress = progress or (lambda done, total, text: None)
        self._times = {key: dict(cells) for key, cells in table.times.items()}
        self._saved_at = time.monotonic()
        self._table = table
        every = units(graph, table.batch)
        self._counts = Counter(unit.key for unit in every)
        self._units = list({(unit.key, unit.full): unit for unit in every}.values())
        self._done, self._total = 0, 2 * (len(self._units) + self._grid())

    def _grid(self) -> int:
        """How many cells there are beside the whole ones."""
        cells = {
            (unit.key, widths)
            for unit in self._units
            for widths in itertools.product(*(unit.grid(slot) for slot in range(len(unit.full))))
            if widths != unit.full
        }
        return len(cells)

    @property
    def table(self) -> LatencyTable:
        return replace(self._table, times=self._times)

    def run(self, model: nn.Module, example_input: ExampleInput | None) -> None:
        """Everything, as far as the time goes."""
        try:
            self._time_overhead()
            whole = [_Cell(unit, unit.full) for unit in self._units]
            self._go_through(whole)
            missing = sum(not self._has(cell) for cell in whole)
            if missing:
                raise InputError(
                    f"{missing} of {len(whole)} operators were not reached in the time,"
                    " expected more seconds"
                )
            unknown = self._graph.computation not in self._table.whole
            if example_input is not None and unknown and not self._late(_EXPORT):
                self._time_network(model, example_input)
            cells = self._in_order()
            if self._go_through(cells):
                self._again([*whole, *cells])
            if not self._late():
                self._progress(self._total, self._total, "done")
        finally:
            self._save()

    def _time_overhead(self) -> None:
        """What a call takes beside its operators, and what is converted at both ends of it.

        One convolution takes a call, both ends and itself, two in a row a call, both ends and twice
        itself.
        """
        if self._table.overhead:
            return
        call = self._engine.operator(_IDENTITY, self._table.threads)
        overhead = self._least(call, runs=1000, seconds=0.05)
        both: dict[int, int] = {}
        for side in _SIDES:
            one, two = (
                self._least(
                    self._engine.operator(_in_a_row(count, side, self._table.batch)),
                    runs=30,
                    seconds=0.05,
                )
                for count in (1, 2)
            )
            both[_CHANNELS * side**2 * self._table.batch] = 2 * one - two
        # The empty network has an operator too; where next to nothing is converted there is less.
        overhead = max(1, min(overhead, next(iter(both.values()))))
        ends: dict[str, int] = {}
        least = 0
        for count, ns in both.items():
            least = max(least, (ns - overhead) // 2)
            ends[str(count)] = least
        self._table = replace(self._table, overhead=overhead, ends=ends)

    def _time_network(self, model: nn.Module, example_input: ExampleInput) -> None:
        """The least time of the whole network, as the engine's file of it takes."""
        batch, threads = self._table.batch, self._table.threads
        example = batched(as_examples(example_input, None)[0], batch)
        self._progress(self._done, self._total, "the whole network")
        plain = bake(model).cpu().eval().requires_grad_(False)
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"network{self._engine.suffix}"
            self._engine.write(plain, example, path)
            opened = self._engine.open(path, threads)
            tensors = input_tensors(example)
            least = self._least(lambda: opened(*tensors), runs=100, seconds=1.0)
        whole = {**self._table.whole, self._graph.computation: least}
        self._table = replace(self._table, whole=whole)
        self._save()

    def _in_order(self) -> list[_Cell]:
        """All cells but the whole ones: what takes most of the whole first, coarse steps first."""
        found: dict[tuple[str, tuple[int, ...]], tuple[float, _Cell]] = {}
        for unit in self._units:
            if not self._times[unit.key]:
                continue  # it can't be timed
            share = max(1, self.table.net(unit)[unit.full]) * self._counts[unit.key]
            grids = [unit.grid(slot) for slot in range(len(unit.full))]
            levels = [_levels(len(grid)) for grid in grids]
            for places in itertools.product(*(range(len(grid)) for grid in grids)):
                widths = tuple(grid[place] for grid, place in zip(grids, places, strict=True))
                level = max(
                    (level[place] for level, place in zip(levels, places, strict=True)), default=0
                )
                weight = share / 2 ** (level * len(grids))
                held = found.get((unit.key, widths))
                if level and (held is None or held[0] < weight):
                    found[unit.key, widths] = (weight, _Cell(unit, widths))
        return [cell for _, cell in sorted(found.values(), key=lambda one: -one[0])]

    def _go_through(self, cells: list[_Cell]) -> bool:
        """Time what was not yet; whether something was, to the end."""
        some = False
        for cell in cells:
            if self._has(cell):
                self._tell(cell.unit.module)
                continue
            if self._late():
                return False
            some = True
            self._tell(cell.unit.module)
            ns = self._time(cell)
            if ns is not None:
                self._times.setdefault(cell.unit.key, {})[cell.widths] = ns
            elif cell.widths == cell.unit.full:
                self._times.setdefault(cell.unit.key, {})
            if time.monotonic() - self._saved_at > _SAVE:
                self._save()
        return some

    def _again(self, cells: list[_Cell]) -> None:
        """Time all once more, from the last on, so that what disturbs falls on others."""
        differences: list[float] = []
        for cell in reversed(cells):
            if self._late():
                break
            self._tell(f"{cell.unit.module}, again")
            own = self._times[cell.unit.key]
            before = own.get(cell.widths)
            ns = self._time(cell) if before else None
            if before and ns:
                differences.append(abs(ns - before) / max(ns, before))
                own[cell.widths] = min(ns, before)
        if differences:
            # At most so many: on a machine that is never quiet steps are hard to tell from noise.
            noise = float(np.clip(np.median(differences), LEAST_NOISE, 2 * NOISE))
            self._table = replace(self._table, noise=round(noise, 4))

    def _tell(self, text: str) -> None:
        self._progress(self._done, self._total, text or "the model")
        self._done = min(self._done + 1, self._total)

    def _time(self, cell: _Cell) -> int | None:
        """The least time of a cell; none where the engine can't run it."""
        try:
            call = self._engine.operator(cell.unit.at(cell.widths), self._table.threads)
            return self._least(call, runs=_LEAST, seconds=_SECONDS)
        except ModelError:
            return None
        except (LcpruneError, OSError, MemoryError):
            raise
        except Exception:  # engines have errors of their own kinds
            return None

    def _least(self, call: Callable[[], object], *, runs: int, seconds: float) -> int:
        """Nanoseconds of the fastest of so many calls and seconds, as far as there is time."""
        for _ in range(_WARM_UP):
            call()
            if self._late():
                break
        least, done = 2**62, 0
        with _uncollected():
            began = time.perf_counter_ns()
            while done < runs or time.perf_counter_ns() - began < seconds * 1e9:
                start = time.perf_counter_ns()
                call()
                least = min(least, time.perf_counter_ns() - start)
                done += 1
                if self._late():
                    break
        return least

    def _has(self, cell: _Cell) -> bool:
        own = self._times.get(cell.unit.key)
        return own is not None and (cell.widths in own or not own)

    def _late(self, margin: float = 0.0) -> bool:
        return time.monotonic() + margin > self._deadline

    def _save(self) -> None:
        if self._file is not None:
            self.table.save(self._file)
        self._saved_at = time.monotonic()


def _levels(count: int) -> list[int]:
    """By place in a grid, how fine the steps are that first reach it: 0 is the last place alone."""
    most = max(count - 1, 1).bit_length()
    places = range(count - 1, -1, -1)
    return [0 if n == 0 else 1 + most - ((n & -n).bit_length()) for n in places]


def _in_a_row(count: int, side: int, batch: int) -> Operator:
    """So many 1×1 convolutions."""
    pair = (1, 1)
    settings = {
        "stride": pair, "padding": (0, 0), "dilation": pair, "transposed": False,
        "output_padding": (0, 0), "groups": 1,
    }  # fmt: skip
    image = (batch, _CHANNELS, side, side)
    shapes = [image] + count * [(_CHANNELS, _CHANNELS, 1, 1), image]
    nodes = [Node("convolution", (2 * n, 2 * n + 1), 2 * n + 2, settings) for n in range(count)]
    return Operator(tuple(shapes), (0,), tuple(range(1, 2 * count, 2)), tuple(nodes))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Within, no garbage is collected, which would fall on whoever's turn it is."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
