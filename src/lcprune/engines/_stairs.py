"""A latency table for people: what takes most of a network, and how its time steps with widths."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from lcprune.engines._table import LatencyTable, envelope
from lcprune.engines._units import units
from lcprune.graph import ChannelGraph, IntArray


@dataclass(frozen=True, eq=False)
class Stairs:
    """A unit of a network: ``count`` of them take ``share`` of the whole.

    ``times`` are the measured ns, as ``LatencyTable.net`` has them, at ``widths`` of its output,
    its input whole; ``least`` the lower envelope there. ``measured`` is the part of its grid that
    was timed. ``module`` is the first that it is of, ``key`` what it is.
    """

    module: str
    key: str
    count: int
    share: float
    measured: float
    widths: IntArray
    times: IntArray
    least: IntArray

    def steps(self, noise: float) -> list[tuple[int, int]]:
        """The widths that are worth having, ascending, and the time at each."""
        found = [len(self.widths) - 1]
        whole = self.least[-1]
        for place in range(len(self.widths) - 2, -1, -1):
            if self.least[place] <= self.least[found[-1]] - max(noise * whole, 1):
                found.append(place)
        return [(int(self.widths[place]), int(self.least[place])) for place in reversed(found)]


def stairs(table: LatencyTable, graph: ChannelGraph) -> list[Stairs]:
    """The units of a network that the table has times of, those that take most first."""
    every = units(graph, table.batch)
    counts = Counter((unit.key, unit.full) for unit in every)
    first = {(unit.key, unit.full): unit for unit in reversed(every)}
    found: list[Stairs] = []
    for at, unit in first.items():
        net = table.net(unit)
        lowest = envelope(net, unit.full)
        if lowest is None:
            continue
        rest = unit.full[:-1]
        own = sorted(widths for widths in net if widths[:-1] == rest and widths <= unit.full)
        if unit.full not in own:
            own.append(unit.full)  # known from a wider one
        grid = set(itertools.product(*(unit.grid(slot) for slot in range(len(unit.full)))))
        along = lowest.times[tuple([-1] * len(rest))] if unit.full else lowest.times.reshape(1)
        widths = np.array([width[-1] if width else 1 for width in own], dtype=np.int64)
        places = 1 + np.searchsorted(lowest.grids[-1], widths) if unit.full else np.array([0])
        found.append(
            Stairs(
                module=unit.module or "the model",
                key=unit.key,
                count=counts[at],
                share=float(along[-1]) * counts[at],
                measured=len(grid & net.keys()) / len(grid),
                widths=widths,
                times=np.array([net.get(width, int(along[-1])) for width in own], dtype=np.int64),
                least=np.rint(along[places]).astype(np.int64),
            )
        )
    total = sum(one.share for one in found) or 1.0
    found.sort(key=lambda one: -one.share)
    return [replace(one, share=one.share / total) for one in found]
