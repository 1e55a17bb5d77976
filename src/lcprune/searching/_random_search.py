"""Random search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcprune.ranking import Compensation
from lcprune.searching._strategy import Candidate, trial_generator


class RandomSearch:
    """The identity, then independent draws: the control that a strategy must beat.

    Example:
        strategy = RandomSearch(Additive(graph, saliency), trials=400)
        for _ in range(400):
            candidate = strategy.ask()
            strategy.tell(candidate, loss_of(candidate.latent))
    """

    def __init__(self, compensation: Compensation, trials: int, seed: int = 0) -> None:
        self._compensation = compensation
        self._seed = seed
        self._next = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"name": "random"}

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        if number == 0:
            return Candidate(number, self._compensation.identity(), "identity")
        latent = self._compensation.draw(trial_generator(self._seed, number))
        return Candidate(number, latent, "draw")

    def tell(self, candidate: Candidate, loss: float) -> None:
        self._next = max(self._next, candidate.number + 1)
