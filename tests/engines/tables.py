"""Latency tables made by hand, for tests that need no engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from lcprune.engines import LatencyTable
from lcprune.engines._units import units
from lcprune.graph import ChannelGraph

Time = Callable[[str, tuple[int, ...]], int]
"""Nanoseconds of a unit, by its key, at widths."""


def hand_made(
    graph: ChannelGraph, time: Time, *, batch: int = 1, overhead: int = 0
) -> LatencyTable:
    """A table with every cell of the grid of every unit of a traced network."""
    times: dict[str, dict[tuple[int, ...], int]] = {}
    for unit in units(graph, batch):
        cells = times.setdefault(unit.key, {})
        for widths in itertools.product(*(unit.grid(slot) for slot in range(len(unit.full)))):
            cells[widths] = time(unit.key, widths)
    return LatencyTable("onnxruntime", batch, 1, "a processor", {}, times, overhead)


def blocked(key: str, widths: tuple[int, ...], block: int = 16) -> int:
    """A time as of an engine that computes channels in blocks, and others much slower."""
    product = 1
    for width in widths:
        product *= -(-width // block)
    even = all(width % block == 0 for width in widths)
    return 1000 * product * (1 if even else 2) if key.startswith("convolution") else 50 * product
