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

    Latents to ``start`` from come first of all.

    Example:
        strategy = RandomSearch(ranker, trials=400)
        for _ in range(400):
            candidate = strategy.ask()
            strategy.tell(candidate, loss_of(candidate.keep))
    """

    def __init__(
        self, ranker: Ranker, trials: int, seed: int = 0, *, start: Sequence[FloatArray] = ()
    ) -> None:
        check_strategy(ranker, trials, seed)
        self._ranker = ranker
        self._seed = seed
        self._start = latents_of(start, ranker)
        self._next = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"name": "random"}

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        if number < len(self._start):
            return ranked(self._ranker, number, self._start[number], "start")
        compensation = self._ranker.compensation
        if number == len(self._start):
            return ranked(self._ranker, number, compensation.identity(), "identity")
        latent = compensation.draw(trial_generator(self._seed, number))
        return ranked(self._ranker, number, latent, "draw")

    def tell(self, candidate: Candidate, loss: float) -> None:
        self._next = max(self._next, candidate.number + 1)
