"""Random search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lcprune.graph import FloatArray
from lcprune.ranking import Ranker
from lcprune.searching._strategy import (
    Candidate,
    check_strategy,
    latents_of,
    ranked,
    trial_generator,
)


class RandomSearch:
    """The identity, then independent draws: the control that a strategy must beat.

    Latents to ``start`` from come first of all. Each is measured after ``steps`` of training.

    Example:
        strategy = RandomSearch(ranker, trials=400)
        for _ in range(400):
            candidate = strategy.ask()
            strategy.tell(candidate, loss_of(candidate.keep))
    """

    def __init__(
        self,
        ranker: Ranker,
        trials: int,
        seed: int = 0,
        *,
        start: Sequence[FloatArray] = (),
        steps: int = 0,
    ) -> None:
        check_strategy(ranker, trials, seed, steps)
        self._ranker = ranker
        self._seed = seed
        self._start = latents_of(start, ranker)
        self._steps = steps
        self._next = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"name": "random"}

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        if number < len(self._start):
            return self._ranked(number, self._start[number], "start")
        compensation = self._ranker.compensation
        if number == len(self._start):
            return self._ranked(number, compensation.identity(), "identity")
        latent = compensation.draw(trial_generator(self._seed, number))
        return self._ranked(number, latent, "draw")

    def _ranked(self, number: int, latent: FloatArray, origin: str) -> Candidate:
        return ranked(self._ranker, number, latent, origin, steps=self._steps)

    def tell(self, candidate: Candidate, loss: float) -> None:
        self._next = max(self._next, candidate.number + 1)
