"""What a search learns about each family, and how it changes the ranking."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lcprune.graph import FloatArray, IntArray


class Compensation(Protocol):
    """Turns saliencies into comparable scores with a few latent numbers per family.

    A latent is float64 [families, ``parameters``]; it is never changed in place. ``name`` is
    what a plan and a journal call the compensation.
    """

    @property
    def name(self) -> str: ...

    @property
    def parameters(self) -> int: ...

    def identity(self) -> FloatArray:
        """The latent that leaves the ranking as the criterion gave it."""

    def draw(self, generator: np.random.Generator) -> FloatArray:
        """A random latent in which every family differs from the identity."""

    def perturb(
        self, latent: FloatArray, generator: np.random.Generator, share: float, step: float
    ) -> FloatArray:
        """A copy in which ``share`` of the families, at least one, moved by about ``step``.

        A ``step`` of 1 is the width of ``draw``.
        """

    def offset(self, beta: FloatArray) -> FloatArray:
        """The latent that adds ``beta``, float64 [families], to the scores of the identity.

        Raises ``InputError`` where there is nothing to learn.
        """

    def apply(self, latent: FloatArray) -> FloatArray:
        """The scores [prunable] that the groups are sorted by, ascending is removed first."""


def choose_families(count: int, share: float, generator: np.random.Generator) -> IntArray:
    """``share`` of ``count`` families, at least one, without repetition."""
    chosen = min(count, max(1, round(share * count)))
    return generator.choice(count, size=chosen, replace=False).astype(np.int64)
