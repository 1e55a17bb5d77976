"""Probes, an allocation, and moves that a surrogate of the loss has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lcprune.errors import InputError
from lcprune.graph import IntArray
from lcprune.ranking import Ranker
from lcprune.searching._allocation import allocate, halfway, narrower_by_one
from lcprune.searching._curves import Curves
from lcprune.searching._moves import Moves
from lcprune.searching._strategy import PART, PROBE, UNIFORM, Candidate, trial_generator
from lcprune.searching._surrogate import Surrogate
from lcprune.searching._told import Point, Told

_HALFWAY, _ALLOCATION = "halfway", "allocation"
_PROPOSALS = 256


class Auto:
    """Asks what each family can spare, allocates accordingly, and goes on from there.

    1. The identity; one width for all.
    2. Probes, unless they would be more than ``probed`` of all trials: halfway from the better of
       these two to the whole network, where a loss still says something, and every family alone
       a fifth narrower from there. Then the allocation at which the next channels of all
       families cost the same loss for each MAC.
    3. Of 256 moves from the ``elite`` best plans (a few families wider or narrower, all others by
       one share, so that the budget is used) always the one of which a ``Surrogate`` of all
       losses so far, those of probes too, expects most.

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
        self, ranker: Ranker, trials: int, seed: int = 0, *, probed: float = 0.25, elite: int = 8
    ) -> None:
        if not (trials >= 1 and 0 <= probed < 1 and elite >= 1):
            raise InputError(
                f"auto of {trials} trials, {probed} of them probes, elite {elite}; expected at"
                " least 1, a share of 0 to below 1, and at least 1"
            )
        self._ranker = ranker
        self._seed = seed
        self._probed = probed
        self._elite = elite
        self._moves = Moves(ranker.widths)
        self._told = Told(ranker, self._moves)
        self._surrogate = Surrogate(ranker.widths.full)
        families = len(ranker.widths.full)
        self._steps: list[str | int] = ["identity", UNIFORM]
        if families + 1 <= probed * trials:
            self._steps += [_HALFWAY, *range(families), _ALLOCATION]
        self._base: Point | None = None
        self._next = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "name": "auto",
            "probed": self._probed,
            "elite": self._elite,
            "proposals": _PROPOSALS,
            "part": PART,
        }

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        step = self._steps[number] if number < len(self._steps) else "child"
        if step == "identity":
            return Candidate(number, self._ranker.compensation.identity(), step)
        if step == UNIFORM:
            return self._candidate(number, self._moves.uniform(), step)
        if step == _HALFWAY:
            return self._candidate(number, self._halfway(), PROBE)
        if isinstance(step, int):
            base = self._halfway() if self._base is None else self._base.levels
            probe = narrower_by_one(self._ranker.widths, self._moves.widths(base), step)
            return self._candidate(number, self._moves.levels(probe), PROBE)
        if step == _ALLOCATION:
            return self._candidate(number, self._allocated(), step)
        return self._candidate(number, self._child(number), step)

    def tell(self, candidate: Candidate, loss: float) -> None:
        number = candidate.number
        self._next = max(self._next, number + 1)
        point = self._told.add(candidate, loss)
        # Not so where it was asked for with fewer trials, too few for probes.
        if point.probe and number < len(self._steps) and self._steps[number] == _HALFWAY:
            self._base = point

    def _elites(self) -> IntArray:
        best = self._told.best(self._elite)
        return np.stack([point.levels for point in best] or [self._moves.uniform()])

    def _halfway(self) -> IntArray:
        best = self._moves.widths(self._elites()[0])
        return self._moves.levels(halfway(self._ranker.widths, best))

    def _allocated(self) -> IntArray:
        """What the probes say, near the best widths."""
        widths, best = self._ranker.widths, self._moves.widths(self._elites()[0])
        curves = Curves.around(best, (), widths.full)
        if self._base is not None:
            base, base_loss = self._moves.widths(self._base.levels), self._base.loss
            probes = [
                (int(family), int(self._moves.widths(point.levels)[family]), point.loss - base_loss)
                for point in self._told.points
                if point.probe and np.count_nonzero(point.levels != self._base.levels) == 1
                for family in np.flatnonzero(point.levels != self._base.levels)
            ]
            curves = Curves.around(base, probes, widths.full)
        return self._moves.filled(self._moves.levels(allocate(widths, best, curves)))

    def _child(self, number: int) -> IntArray:
        generator = trial_generator(self._seed, number)
        elite = self._elites()
        starts = elite[generator.integers(len(elite), size=_PROPOSALS)]
        levels: IntArray = elite[0]
        for proposal in self._promising(self._moves.around(starts, generator)):
            levels = self._moves.filled(proposal, generator.permutation(len(proposal)))
            if not self._told.knows(levels):
                break
        return levels

    def _promising(self, proposals: IntArray) -> IntArray:
        """``proposals`` [n, families], those first that are expected to gain most."""
        points = self._told.points
        if not (self._told.best(2)[1:] and len(proposals)):
            return proposals
        gains = self._surrogate.improvements(
            self._moves.widths(np.stack([point.levels for point in points])),
            np.array([point.loss for point in points]),
            np.array([point.probe for point in points]),
            self._moves.widths(proposals),
        )
        ordered: IntArray = proposals[np.argsort(-gains, kind="stable")]
        return ordered

    def _candidate(self, number: int, levels: IntArray, origin: str) -> Candidate:
        widths = self._moves.widths(levels)
        return Candidate(number, self._ranker.widths.latent(widths), origin)
