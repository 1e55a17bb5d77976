"""Rankers over chains of layers, and losses of widths that need no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphs import chain
from lcprune.cost import Budget
from lcprune.criteria import Saliency
from lcprune.graph import FloatArray
from lcprune.ranking import Ranker
from lcprune.searching import Candidate, Strategy


def chain_ranker(
    sizes: Sequence[int], macs: float = 0.5, seed: int = 0, **options: object
) -> Ranker:
    """Layers of the sizes given, with scores of very different magnitude."""
    _, graph = chain(sizes)
    generator = np.random.default_rng(seed)
    magnitudes = np.repeat(10.0 ** generator.uniform(-2, 2, len(sizes)), sizes)
    scores = Saliency(magnitudes * generator.random(sum(sizes)), "l2", "sum")
    return Ranker(graph, scores, Budget(macs=macs), **options)  # type: ignore[arg-type]


class Convex:
    """A loss that grows with what every family lost, more and more, and faster where all lose."""

    def __init__(self, ranker: Ranker, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.widths = ranker.widths
        self.factors: FloatArray = np.exp(generator.normal(0, 1.5, len(self.widths.full)))
        self.powers: FloatArray = generator.uniform(1.2, 3, len(self.widths.full))

    def of_widths(self, widths: np.ndarray) -> float:
        excess = self.factors * (1 - widths / self.widths.full) ** self.powers
        return 0.1 + float(excess.sum() + 0.2 * excess.sum() ** 2)

    def __call__(self, candidate: Candidate) -> float:
        return self.of_widths(self.widths.of(candidate.keep))


Run = list[tuple[Candidate, float]]


def drive(strategy: Strategy, trials: int, loss: Callable[[Candidate], float]) -> Run:
    """Ask for a candidate and tell its loss, one after the other."""
    told = []
    for _ in range(trials):
        candidate = strategy.ask()
        told.append((candidate, loss(candidate)))
        strategy.tell(*told[-1])
    return told
