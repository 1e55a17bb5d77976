"""What proposes candidates and learns from their loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lcprune.graph import FloatArray

PROBE = "probe"
UNIFORM = "uniform"
PART = 0.25
"""The share of the images that probes are measured on."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A latent [families, parameters] to try, and where it comes from.

    ``origin`` is ``identity``, ``draw``, ``child``, or what else a strategy calls it; ``parent``
    is the number of the candidate that a child was copied from.

    A ``PROBE`` is cut where its latent says, not at the budget, and measured on the first
    ``PART`` of the images where the fitness can be measured on a part: it tells where to go on,
    and is never the result.
    """

    number: int
    latent: FloatArray
    origin: str
    parent: int | None = None

    @property
    def share(self) -> float:
        """The share of the images that it is measured on."""
        return PART if self.origin == PROBE else 1.0


class Strategy(Protocol):
    """Asked for a candidate, then told its loss, again and again.

    All randomness of candidate n comes from ``trial_generator(seed, n)``. A strategy that was
    told the first n losses, whether it had been asked for those candidates or not, goes on like
    one that was asked and told all along: so a search continues from its journal.

    Where several candidates are evaluated at once, several are asked for before one is told, and
    they are told as they finish. A strategy depends on the order of those calls alone: the same
    calls, with the same losses, leave it in the same state.
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes two strategies the same, as JSON: its name and numbers, without the seed."""

    def ask(self) -> Candidate: ...

    def tell(self, candidate: Candidate, loss: float) -> None: ...


def trial_generator(seed: int, number: int) -> np.random.Generator:
    """The generator of one trial, independent of those of all other trials and seeds."""
    return np.random.default_rng([number, seed])
