"""What a strategy over widths was told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lcprune.graph import IntArray
from lcprune.ranking import Ranker
from lcprune.searching._moves import Moves
from lcprune.searching._strategy import PROBE, Candidate


@dataclass(frozen=True, eq=False)
class Point:
    """Levels [families] that were tried, and their loss; ``probe`` where that is of a probe."""

    number: int
    levels: IntArray
    loss: float
    probe: bool


class Told:
    """All candidates with a finite loss, by the levels of their plans."""

    def __init__(self, ranker: Ranker, moves: Moves) -> None:
        self._ranker = ranker
        self._moves = moves
        self._points: dict[tuple[bool, bytes], Point] = {}

    def add(self, candidate: Candidate, loss: float) -> Point:
        """Take in what was told."""
        probe = candidate.origin == PROBE
        # From the latent, since what was told need not have been asked for.
        widths = (self._ranker.probed if probe else self._ranker.kept)(candidate.latent)
        point = Point(candidate.number, self._moves.levels(widths), loss, probe)
        if math.isfinite(loss):
            self._points.setdefault((probe, point.levels.tobytes()), point)
        return point

    @property
    def points(self) -> list[Point]:
        """All of them, probes too, in the order in which they were told."""
        return list(self._points.values())

    def knows(self, levels: IntArray) -> bool:
        """Whether a plan of these levels was told."""
        return (False, levels.tobytes()) in self._points

    def best(self, count: int) -> list[Point]:
        """The ``count`` lowest losses within the budget, ascending."""
        plans = [point for point in self._points.values() if not point.probe]
        return sorted(plans, key=lambda point: (point.loss, point.number))[:count]
