"""The figures of a run as a table for people."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from lcprune.engines import Timing
from lcprune.graph import quantity
from lcprune.runs import Latency, Summary, SweepPoint, SweepSummary, TrainSummary

_NAMES = {
    "macs": "MACs (multiply-adds)",
    "params": "parameters",
    "weights": "weights",
    "activations": "peak of activations, batch 1",
    "energy": "energy of one sample, by its model",
}
_SHORT = {"macs": "MACs", "activations": "peak of activations"}


def result_table(summary: Summary) -> Table:
    """Before, after and their ratio: every cost, accuracy, and latency beside its prediction."""
    table = Table(title=f"{summary.model} on {summary.data}", title_justify="left")
    table.add_column("")
    for heading in ("before", "after", "ratio"):
        table.add_column(heading, justify="right")
    for name, cost in summary.costs.items():
        if name == "latency":  # it is among the latencies below
            continue
        before, after = quantity(cost.before, cost.unit), quantity(cost.after, cost.unit)
        table.add_row(cost_name(name), before, after, f"{cost.ratio:.1%}")
    before, pruned, after = (
        _percent(summary.scores[name].top1) for name in ("before", "pruned", "after")
    )
    table.add_row("top-1, %", before, after, "")
    table.add_row("  recalibrated, not trained", "", pruned, "")
    if "reconstructed" in summary.scores:
        refitted = _percent(summary.scores["reconstructed"].top1)
        table.add_row("  reconstructed, not trained", "", refitted, "")
    for latency in summary.latency:
        name = latency_name(latency.batch, latency.threads, latency.engine)
        first, last = latency.before_ms, latency.after_ms
        ratio = f"{last / first:.1%}" if first and last else ""
        table.add_row(name, _milliseconds(first), _milliseconds(last), ratio)
        if latency.predicted_ms is not None:
            table.add_row("  predicted", "", _milliseconds(latency.predicted_ms), "")
    if "latency" in summary.costs and not summary.costs["latency"].met:
        table.add_row(f"  bound of {summary.costs['latency'].asked} not met", "", "", "")
    return table


def sweep_table(sweep: SweepSummary) -> Table:
    """The base network and each run: accuracy, every cost, latencies, their shares, the knee.

    What is measured of latency stands for what a bound on it has.
    """
    first, last = sweep.points[0], sweep.points[-1]
    costs = sorted(first.costs, key=lambda name: [*_NAMES, name].index(name))
    costs = [name for name in costs if name != "latency"]
    title = f"{sweep.model} on {sweep.data}"
    looks: dict[str, Any] = {"box": SIMPLE, "pad_edge": False, "collapse_padding": True}
    table = Table(title=title, title_justify="left", caption_justify="left", **looks)
    table.add_column("", no_wrap=True)
    headings = ["top-1", *(_SHORT.get(name, name) for name in costs)]
    for heading in (*headings, *(latency.engine for latency in first.latency)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    whole = [quantity(first.costs[name].before, first.costs[name].unit) for name in costs]
    times = [_short_time(latency.before_ms) for latency in last.latency]
    table.add_row("base", _percent(first.scores["before"].top1), *whole, *times, "")
    for point in sweep.points:
        own = [point.costs[name] for name in costs]
        table.add_row(
            point.directory,
            _percent(point.scores["after"].top1),
            *(quantity(cost.after, cost.unit) for cost in own),
            *(_short_time(latency.after_ms) for latency in point.latency),
            _mark(sweep, point),
        )
        shares = [*(f"{cost.ratio:.0%}" for cost in own), *map(_share, point.latency)]
        table.add_row("", "", *shares, "")
    notes = [latency_name(each.batch, each.threads, each.engine) for each in first.latency]
    table.caption = "; ".join(["top-1 in %", *notes])
    return table


def _mark(sweep: SweepSummary, point: SweepPoint) -> str:
    """What there is to say of a run of a sweep."""
    marks = ["knee"] if point.directory == sweep.knee else []
    marks += [] if point.on_front else ["dominated"]
    marks += [] if all(cost.met for cost in point.costs.values()) else ["over its bound"]
    return ", ".join(marks)


def _share(latency: Latency) -> str:
    before, after = latency.before_ms, latency.after_ms
    return f"{after / before:.0%}" if before and after else ""


def _short_time(milliseconds: float | None) -> str:
    return "–" if milliseconds is None else f"{milliseconds:.3g}"


def training_table(summary: TrainSummary) -> Table:
    """What a training came to."""
    table = Table(title=f"{summary.model} on {summary.data}", title_justify="left")
    table.add_column("")
    table.add_column("after the last epoch", justify="right")
    table.add_row("top-1 on the test split, %", _percent(summary.scores["after"].top1))
    if summary.held_out_images:
        name = f"top-1 of {summary.held_out_images} training images held out, %"
        table.add_row(name, _percent(summary.scores["held_out"].top1))
    table.add_row("loss in training", "–" if summary.loss is None else f"{summary.loss:.4f}")
    macs = "–" if summary.macs is None else quantity(summary.macs)
    table.add_row(cost_name("macs"), macs)
    table.add_row(cost_name("params"), quantity(summary.params))
    return table


def cost_name(resource: str) -> str:
    """A resource for people."""
    return _NAMES.get(resource, resource)


def latency_name(batch: int, threads: int, engine: str = "pytorch") -> str:
    """What a latency is of."""
    where = "" if engine == "pytorch" else f"{engine}, "
    return f"latency, ms ({where}batch {batch}, {threads} thread{'s' if threads != 1 else ''})"


def timing_rows(engine: str, timing: Timing) -> dict[str, str]:
    """A time on an engine, in two rows."""
    name = latency_name(timing.batch, timing.threads, engine)
    return {
        f"least {name}": f"{timing.least_ms:.3g}",
        f"  tenth percentile of {timing.runs} runs on {engine}": f"{timing.tenth_ms:.3g}",
    }


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
