"""Probes, an allocation, and a local search over widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lcprune.errors import InputError
from lcprune.ranking import Ranker
from lcprune.searching._allocation import allocate, probe_widths
from lcprune.searching._curves import Curves
from lcprune.searching._moves import Moves
from lcprune.searching._strategy import PROBE, Candidate, trial_generator
from lcprune.searching._told import Told
from lcprune.tracing._graph import IntArray

_FIRST_STEP, _LAST_STEP = 0.2, 0.03
_FIRST_PROBE = 2
_ATTEMPTS = 8


class Auto:
    """Asks what each family can spare, allocates accordingly, and goes on from there.

    1. The identity; one width for all; then probes, at most ``probed`` of all trials: the whole
       network, and each family alone at two widths, or at one (none where that is too many).
    2. The allocation at which the next channels of all families cost the same loss for each MAC.
    3. Exchanges of cost between families of the ``elite`` best plans: one to three families
       narrower, others as much wider as the budget allows. The step falls in a straight line
       over ``trials``, from a fifth of a family's channels to 3 %.

    It moves in widths, so that neither the units of β nor its dead zones matter; each candidate
    is the latent of its widths.

    Example:
        strategy = Auto(ranker, trials=400)
        for _ in range(400):
            candidate = strategy.ask()
            rank = ranker.probe if candidate.origin == PROBE else ranker.plan
            strategy.tell(candidate, loss_of(rank(candidate.latent)))
    """

    def __init__(
        self, ranker: Ranker, trials: int, seed: int = 0, *, probed: float = 0.25, elite: int = 4
    ) -> None:
        if not (trials >= 1 and 0 <= probed < 1 and elite >= 1):
            raise InputError(
                f"auto of {trials} trials, {probed} of them probes, elite {elite}; expected at"
                " least 1, a share of 0 to below 1, and at least 1"
            )
        self._ranker = ranker
        self._trials = trials
        self._seed = seed
        self._probed = probed
        self._elite = elite
        self._moves = Moves(ranker.widths)
        self._told = Told(ranker, self._moves)
        self._probes = probe_widths(ranker.widths, int(probed * trials))
        self._probed_widths: list[tuple[IntArray, float]] = []
        self._next = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"name": "auto", "probed": self._probed, "elite": self._elite}

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        if number == 0:
            return Candidate(number, self._ranker.compensation.identity(), "identity")
        if number == 1:
            return self._candidate(number, self._moves.uniform(), "uniform")
        place = number - _FIRST_PROBE
        if place < len(self._probes):
            return Candidate(number, self._ranker.widths.latent(self._probes[place]), PROBE)
        if place == len(self._probes) and self._probes:
            widths = allocate(self._ranker.widths, self._measured_curves())
            levels = self._moves.filled(self._moves.levels(widths))
            return self._candidate(number, levels, "allocation")
        return self._child(number)

    def tell(self, candidate: Candidate, loss: float) -> None:
        self._next = max(self._next, candidate.number + 1)
        if candidate.origin == PROBE:
            # By its widths: a search that goes on with more trials has other probes.
            self._probed_widths.append((self._ranker.probed(candidate.latent), loss))
        else:
            self._told.add(candidate, loss)

    def _measured_curves(self) -> Curves:
        """What the probes that were told say beyond the whole network."""
        full = self._ranker.widths.full
        whole = [loss for widths, loss in self._probed_widths if (widths == full).all()]
        return Curves(
            full,
            [
                (int(family), int(widths[family]), loss - whole[0] if whole else np.nan)
                for widths, loss in self._probed_widths
                for family in np.flatnonzero(widths < full)
            ],
        )

    def _child(self, number: int) -> Candidate:
        generator = trial_generator(self._seed, number)
        best = self._told.best(self._elite)
        parent = best[generator.integers(len(best))] if best else None
        start = self._moves.uniform() if parent is None else parent.levels
        step = max(_LAST_STEP, _FIRST_STEP * (1 - number / self._trials))
        for _ in range(_ATTEMPTS):
            levels = self._moves.exchanged(start, step, generator)
            if not self._told.knows(levels):
                break
            step *= 1.5
        return self._candidate(number, levels, "child", None if parent is None else parent.number)

    def _candidate(
        self, number: int, levels: IntArray, origin: str, parent: int | None = None
    ) -> Candidate:
        latent = self._ranker.widths.latent(self._moves.widths(levels))
        return Candidate(number, latent, origin, parent)
