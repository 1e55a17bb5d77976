"""Layer-compensated pruning's own form: one offset per family."""

from __future__ import annotations

import numpy as np

from lcprune.criteria import Saliency
from lcprune.graph import ChannelGraph, FloatArray
from lcprune.ranking._compensation import choose_families
from lcprune.ranking._scale import scaled


class Additive:
    """Scores are ``s + β`` with one β per family (Chin, Zhang, Marculescu, 2018, section 3).

    β is drawn from N(0, width), with the width that ``scale`` gives each family (see
    ``SCALES``; the paper's is ``raw``).

    Example:
        compensation = Additive(graph, saliency)
        generator = np.random.default_rng(0)
        latent = compensation.draw(generator)
        scores = compensation.apply(latent)
    """

    parameters = 1

    def __init__(self, graph: ChannelGraph, saliency: Saliency, scale: str = "raw") -> None:
        self.name = "additive" if scale == "raw" else f"additive:{scale}"
        self._family_of = graph.family_of
        self._scale = scaled(graph, saliency, scale)

    def identity(self) -> FloatArray:
        return np.zeros((len(self._scale.widths), 1))

    def draw(self, generator: np.random.Generator) -> FloatArray:
        widths = self._scale.widths
        return (widths * generator.standard_normal(len(widths)))[:, None]

    def perturb(
        self, latent: FloatArray, generator: np.random.Generator, share: float, step: float
    ) -> FloatArray:
        child = latent.copy()
        chosen = choose_families(len(latent), share, generator)
        moves = step * self._scale.widths[chosen] * generator.standard_normal(len(chosen))
        child[chosen, 0] += moves
        return child

    def offset(self, beta: FloatArray) -> FloatArray:
        return beta[:, None]

    def apply(self, latent: FloatArray) -> FloatArray:
        scores: FloatArray = self._scale.scores + latent[self._family_of, 0]
        return scores
