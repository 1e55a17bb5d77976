"""CMA-ES over β, as a strategy that ``search.py`` compares; it did not earn a place in the package.

Hansen, "The CMA evolution strategy: a tutorial", 2016, by the library ``cmaes``: a population of
4 + 3 log(families) around a mean that begins at β = 0, with a step of one width of the first draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from cmaes import CMA

from lcprune.ranking import Ranker
from lcprune.searching import Candidate


class CmaEs:
    """Asks for a generation, and learns from it when all of it was told."""

    def __init__(self, ranker: Ranker, trials: int, seed: int = 0) -> None:
        self._ranker = ranker
        compensation = ranker.compensation
        draws = [compensation.draw(np.random.default_rng(i))[:, 0] for i in range(256)]
        self._widths = np.std(draws, axis=0)
        self._optimizer = CMA(mean=np.zeros(len(self._widths)), sigma=1.0, seed=seed)
        self._told: list[tuple[Any, float]] = []
        self._next = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"name": "cmaes", "population": self._optimizer.population_size}

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        if number == 0:
            return Candidate(number, self._ranker.compensation.identity(), "identity")
        beta = self._optimizer.ask() * self._widths
        return Candidate(number, self._ranker.compensation.offset(beta), "generation")

    def tell(self, candidate: Candidate, loss: float) -> None:
        if candidate.number == 0:
            return
        self._told.append((candidate.latent[:, -1] / self._widths, loss))
        if len(self._told) == self._optimizer.population_size:
            self._optimizer.tell(self._told)
            self._told = []
