"""What ``measure`` does and prints: the stairs of what takes most of a network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from rich.table import Table

from lcprune.cli._inspect import traced
from lcprune.cli._progress import duration
from lcprune.cost import CostModel
from lcprune.engines import LatencyTable, Stairs, engine_named, measure, stairs
from lcprune.graph import ChannelGraph, quantity
from lcprune.runs import MeasureOptions, Reporter

_ROWS = 8
_STEPS = 8


def measured(options: MeasureOptions, reporter: Reporter) -> Iterator[Table | str]:
    """Measure, and what to print of it."""
    engine_named(options.engine)  # before a network is built
    model, example, graph = traced(options.model, options.input, options)
    shape = "x".join(map(str, example.shape))
    reporter.stage(f"timing the operators of {options.model} on {shape}, at many widths")
    began = time.monotonic()
    with ExitStack() as stack:
        advance = None

        def progress(done: int, total: int, text: str) -> None:
            nonlocal advance
            if advance is None:
                advance = stack.enter_context(reporter.progress("measure", total))
            left = max(0.0, options.seconds - (time.monotonic() - began))
            advance(done, f"{text}, at most {duration(left)}")

        table = measure(
            model,
            graph,
            options.engine,
            example_input=example,
            batch=options.batch,
            threads=options.threads,
            seconds=options.seconds,
            path=options.out,
            progress=progress,
        )
    found = stairs(table, graph)
    yield _stairs_table(table, found)
    yield from _sentences(table, graph, found)
    yield f"wrote {options.out}"


def _stairs_table(table: LatencyTable, found: list[Stairs]) -> Table:
    versions = ", ".join(f"{name} {version}" for name, version in table.versions.items())
    threads = f"{table.threads} thread{'s' if table.threads != 1 else ''}"
    shown = Table(
        title=f"{versions}, batch {table.batch}, {threads}: µs by channels of the output",
        title_justify="left",
    )
    shown.add_column("operator")
    for heading in ("of them", "share"):
        shown.add_column(heading, justify="right")
    shown.add_column("widths worth having: µs, its input whole")
    for one in found[:_ROWS]:
        steps = one.steps(table.noise)
        dots = "… " if len(steps) > _STEPS else ""
        text = dots + ", ".join(f"{width}: {ns / 1000:.3g}" for width, ns in steps[-_STEPS:])
        shown.add_row(one.module, str(one.count), f"{one.share:.0%}", text)
    return shown


def _sentences(table: LatencyTable, graph: ChannelGraph, found: list[Stairs]) -> Iterator[str]:
    timed = sum(one.share * one.measured for one in found)
    yield (
        f"{timed:.0%} of the grid timed (weighted by what operators take), a call's own"
        f" {table.overhead / 1000:.3g} µs taken off, times of the same within {table.noise:.1%}"
    )
    predicted = CostModel(graph, [table]).evaluate()["latency"]
    whole = table.whole.get(graph.computation)
    if whole:
        yield (
            f"the whole network: {quantity(predicted, 'ns')} predicted, {quantity(whole, 'ns')}"
            f" measured ({predicted / whole:.2f} times)"
        )
    else:
        yield f"the whole network: {quantity(predicted, 'ns')} predicted"
