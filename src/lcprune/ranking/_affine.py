"""LeGR's form of compensation: a factor and an offset per family."""

from __future__ import annotations

import numpy as np

from lcprune.criteria import Saliency
from lcprune.graph import ChannelGraph, FloatArray
from lcprune.ranking._compensation import choose_families
from lcprune.ranking._scale import scaled


class Affine:
    """Scores are ``α·s + κ`` with α > 0 and κ per family (LeGR; Chin et al., CVPR 2020, eq. 2).

    α is a walk of factors ``exp(N(0, 1))``, κ one of offsets N(0, width), with the width that
    ``scale`` gives each family (see ``SCALES``). A positive α keeps the order within a family.

    Example:
        compensation = Affine(graph, saliency)
        generator = np.random.default_rng(0)
        latent = compensation.draw(generator)
        scores = compensation.apply(latent)
    """

    parameters = 2

    def __init__(self, graph: ChannelGraph, saliency: Saliency, scale: str = "raw") -> None:
        self.name = "affine" if scale == "raw" else f"affine:{scale}"
        self._family_of = graph.family_of
        self._scale = scaled(graph, saliency, scale)

    def identity(self) -> FloatArray:
        return np.tile([1.0, 0.0], (len(self._scale.widths), 1))

    def draw(self, generator: np.random.Generator) -> FloatArray:
        families = np.arange(len(self._scale.widths))
        return self._moved(self.identity(), families, generator, 1.0)

    def perturb(
        self, latent: FloatArray, generator: np.random.Generator, share: float, step: float
    ) -> FloatArray:
        chosen = choose_families(len(latent), share, generator)
        return self._moved(latent, chosen, generator, step)

    def offset(self, beta: FloatArray) -> FloatArray:
        return np.stack([np.ones(len(beta)), beta], axis=1)

    def apply(self, latent: FloatArray) -> FloatArray:
        factors, offsets = latent[self._family_of].T
        scores: FloatArray = factors * self._scale.scores + offsets
        return scores

    def _moved(
        self,
        latent: FloatArray,
        families: np.ndarray[tuple[int], np.dtype[np.int64]],
        generator: np.random.Generator,
        step: float,
    ) -> FloatArray:
        noise = step * generator.standard_normal((2, len(families)))
        child = latent.copy()
        child[families, 0] *= np.exp(noise[0])
        child[families, 1] += self._scale.widths[families] * noise[1]
        return child
