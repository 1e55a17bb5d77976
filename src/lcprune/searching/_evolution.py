"""Regularised evolution."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lcprune._checks import integer, number
from lcprune.graph import FloatArray
from lcprune.ranking import Ranker
from lcprune.searching._strategy import (
    MOST_TRIALS,
    Candidate,
    check_strategy,
    latents_of,
    ranked,
    trial_generator,
)

_LAST_STEP = 0.2


class Evolution:
    """Evolution in which the oldest leaves, not the worst (Real et al., "Regularized evolution
    for image classifier architecture search", AAAI 2019, algorithm 1).

    The first candidate is the identity, then draws fill the population; after that each is a
    copy of the best of ``tournament`` members picked at random, with ``share`` of its families
    perturbed, at least one. The step of a perturbation falls in a straight line from 1 to 0.2
    over ``trials`` (in units of the first draws). With latents to ``start`` from, these come
    before the identity, and children after it, without draws. Each is measured after ``steps`` of
    training.

    Defaults are those of Chin, Zhang, Marculescu (2018): population 64, tournament 16, a tenth
    of the families.

    Example:
        strategy = Evolution(ranker, trials=400)
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
        population: int = 64,
        tournament: int = 16,
        share: float = 0.1,
        start: Sequence[FloatArray] = (),
        steps: int = 0,
    ) -> None:
        check_strategy(ranker, trials, seed, steps)
        integer("population", population, 1, MOST_TRIALS)
        integer("tournament", tournament, 1, population)
        number("share", share, 0, 1)
        self._ranker = ranker
        self._trials = trials
        self._seed = seed
        self._size = population
        self._tournament = tournament
        self._share = share
        self._start = latents_of(start, ranker)
        self._steps = steps
        self._population: deque[tuple[Candidate, float]] = deque(maxlen=population)
        self._next = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "name": "evolution",
            "population": self._size,
            "tournament": self._tournament,
            "share": self._share,
        }

    @property
    def population(self) -> tuple[int, ...]:
        """Numbers of the living candidates, the oldest first."""
        return tuple(candidate.number for candidate, _ in self._population)

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        if number < len(self._start):
            return self._ranked(number, self._start[number], "start")
        compensation = self._ranker.compensation
        if number == len(self._start):
            return self._ranked(number, compensation.identity(), "identity")
        generator = trial_generator(self._seed, number)
        if not self._population or (number < self._size and not self._start):
            return self._ranked(number, compensation.draw(generator), "draw")
        parent = self._winner(generator)
        latent = compensation.perturb(
            np.array(parent.note["latent"]), generator, self._share, self._step(number)
        )
        return self._ranked(number, latent, "child", parent.number)

    def tell(self, candidate: Candidate, loss: float) -> None:
        self._next = max(self._next, candidate.number + 1)
        self._population.append((candidate, loss))

    def _ranked(
        self, number: int, latent: FloatArray, origin: str, parent: int | None = None
    ) -> Candidate:
        return ranked(self._ranker, number, latent, origin, parent, steps=self._steps)

    def _winner(self, generator: np.random.Generator) -> Candidate:
        living = len(self._population)
        rivals = generator.choice(living, size=min(self._tournament, living), replace=False)
        best = min(rivals.tolist(), key=lambda i: (self._population[i][1], i))
        return self._population[best][0]

    def _step(self, number: int) -> float:
        return max(_LAST_STEP, 1 - (1 - _LAST_STEP) * number / self._trials)
