"""No compensation: the criterion's own global ranking."""

from __future__ import annotations

import numpy as np

from lcprune.criteria import Saliency
from lcprune.ranking._compensation import FloatArray
from lcprune.ranking._scale import scaled
from lcprune.tracing._graph import ChannelGraph


class Uncompensated:
    """Scores are the saliencies; there is nothing to learn.

    Example:
        compensation = Uncompensated(graph, saliency)
        scores = compensation.apply(compensation.identity())
    """

    name = "none"
    parameters = 0

    def __init__(self, graph: ChannelGraph, saliency: Saliency) -> None:
        self._families = len(graph.families)
        self._scores = scaled(graph, saliency, "raw").scores

    def identity(self) -> FloatArray:
        return np.empty((self._families, 0))

    def draw(self, generator: np.random.Generator) -> FloatArray:
        return self.identity()

    def perturb(
        self, latent: FloatArray, generator: np.random.Generator, share: float, step: float
    ) -> FloatArray:
        return self.identity()

    def apply(self, latent: FloatArray) -> FloatArray:
        return self._scores
