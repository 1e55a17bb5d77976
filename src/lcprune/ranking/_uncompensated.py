"""Nothing learned: the criterion's own global ranking, and one width for all families."""

from __future__ import annotations

import numpy as np

from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, FloatArray
from lcprune.ranking._scale import scaled


class Uncompensated:
    """Scores are the saliencies, or ranks of them; there is nothing to learn.

    Example:
        compensation = Uncompensated(graph, saliency)
        scores = compensation.apply(compensation.identity())
    """

    parameters = 0

    def __init__(
        self, graph: ChannelGraph, saliency: Saliency, scale: str = "raw", name: str = "none"
    ) -> None:
        self.name = name
        self._families = len(graph.families)
        self._scores = scaled(graph, saliency, scale).scores

    def identity(self) -> FloatArray:
        return np.empty((self._families, 0))

    def draw(self, generator: np.random.Generator) -> FloatArray:
        return self.identity()

    def perturb(
        self, latent: FloatArray, generator: np.random.Generator, share: float, step: float
    ) -> FloatArray:
        return self.identity()

    def offset(self, beta: FloatArray) -> FloatArray:
        raise InputError(f"compensation {self.name} adds nothing, expected additive or affine")

    def apply(self, latent: FloatArray) -> FloatArray:
        return self._scores


def uniform_width(graph: ChannelGraph, saliency: Saliency) -> Uncompensated:
    """The control: every family loses the same share of its channels, the lowest scores first.

    One width multiplier for all layers, cut to the budget: ranks within the family are compared.
    """
    return Uncompensated(graph, saliency, "family-rank", "uniform")
