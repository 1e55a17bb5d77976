"""Rankers over chains of layers, and losses of widths that need no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphs import chain
from lcprune.cost import Budget
from lcprune.criteria import Saliency
from lcprune.graph import FloatArray
from lcprune.ranking import Ranker
from lcprune.searching import Candidate
from lcprune.searching._strategy import PROBE


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
        self.ranker = ranker
        self.full = ranker.widths.full
        self.factors: FloatArray = np.exp(generator.normal(0, 1.5, len(self.full)))
        self.powers: FloatArray = generator.uniform(1.2, 3, len(self.full))

    def of_widths(self, widths: np.ndarray) -> float:
        excess = self.factors * (1 - widths / self.full) ** self.powers
        return 0.1 + float(excess.sum() + 0.2 * excess.sum() ** 2)

    def __call__(self, candidate: Candidate) -> float:
        if candidate.origin == PROBE:
            keep = self.ranker.compensation.apply(candidate.latent) >= 0
            family_of = self.ranker._graph.family_of
            return self.of_widths(np.bincount(family_of[keep], minlength=len(self.full)))
        return self.of_widths(self.ranker.kept(candidate.latent))
