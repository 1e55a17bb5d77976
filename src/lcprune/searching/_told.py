"""What a strategy over widths was told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lcprune.ranking import Ranker
from lcprune.searching._moves import Moves
from lcprune.searching._strategy import Candidate
from lcprune.tracing._graph import IntArray


@dataclass(frozen=True, eq=False)
class Point:
    """Levels [families] that were tried within the budget, and their loss."""

    number: int
    levels: IntArray
    loss: float


class Told:
    """All candidates within the budget with a finite loss, by the levels of their plans."""

    def __init__(self, ranker: Ranker, moves: Moves) -> None:
        self._ranker = ranker
        self._moves = moves
        self._points: dict[bytes, Point] = {}

    def add(self, candidate: Candidate, loss: float) -> None:
        """Take in what was told."""
        # From the latent, since what was told need not have been asked for.
        levels = self._moves.levels(self._ranker.kept(candidate.latent))
        if math.isfinite(loss):
            self._points.setdefault(levels.tobytes(), Point(candidate.number, levels, loss))

    def knows(self, levels: IntArray) -> bool:
        return levels.tobytes() in self._points

    def best(self, count: int) -> list[Point]:
        """The ``count`` lowest losses, ascending."""
        return sorted(self._points.values(), key=lambda p: (p.loss, p.number))[:count]
