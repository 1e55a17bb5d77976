"""The figures of a run as a table for people."""

from __future__ import annotations

from rich.table import Table

from lcprune.artifact import Latency, Summary, TrainSummary


def result_table(summary: Summary) -> Table:
    """Before, after and their ratio: MACs, parameters, accuracy, latency."""
    table = Table(title=f"{summary.model} on {summary.data}", title_justify="left")
    table.add_column("")
    for heading in ("before", "after", "ratio"):
        table.add_column(heading, justify="right")
    for name, before, after in (
        ("MACs (multiply-adds)", summary.macs_before, summary.macs_after),
        ("parameters", summary.params_before, summary.params_after),
    ):
        table.add_row(name, quantity(before), quantity(after), f"{after / before:.1%}")
    table.add_row("top-1, %", _percent(summary.top1_before), _percent(summary.top1_after), "")
    table.add_row("  recalibrated, not trained", "", _percent(summary.top1_pruned), "")
    first, last = summary.latency_ms_before, summary.latency_ms_after
    ratio = f"{last.value / first.value:.1%}" if first and last else ""
    table.add_row(latency_name(first), _milliseconds(first), _milliseconds(last), ratio)
    return table


def training_table(summary: TrainSummary) -> Table:
    """What a training came to."""
    table = Table(title=f"{summary.model} on {summary.data}", title_justify="left")
    table.add_column("")
    table.add_column("after the last epoch", justify="right")
    table.add_row("top-1 on the test split, %", _percent(summary.top1))
    if summary.held_out_images:
        name = f"top-1 of {summary.held_out_images} training images held out, %"
        table.add_row(name, _percent(summary.top1_held_out))
    table.add_row("loss in training", "–" if summary.loss is None else f"{summary.loss:.4f}")
    macs = "–" if summary.macs is None else quantity(summary.macs)
    table.add_row("MACs (multiply-adds)", macs)
    table.add_row("parameters", quantity(summary.params))
    return table


def quantity(count: int) -> str:
    """A count with its unit: 125.75 M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return str(count)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _milliseconds(value: Latency | None) -> str:
    return "–" if value is None else f"{value.value:.2f}"


def latency_name(value: Latency | None) -> str:
    if value is None:
        return "latency, ms"
    threads = f"{value.threads} thread{'s' if value.threads != 1 else ''}"
    return f"latency, ms (batch {value.batch}, {threads})"
