"""Probes, allocations, and a local search over widths."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from lcprune.errors import InputError
from lcprune.ranking import Ranker
from lcprune.searching._allocation import allocate, halfway, narrower_by_one
from lcprune.searching._curves import Curves
from lcprune.searching._moves import Moves
from lcprune.searching._strategy import PART, PROBE, UNIFORM, Candidate, trial_generator
from lcprune.searching._told import Told
from lcprune.tracing._graph import IntArray

_FIRST = ("identity", UNIFORM)
_HALFWAY, _BEST, _ALLOCATION = "halfway", "best", "allocation"
_BASES = (_HALFWAY, _BEST, _BEST)
_FIRST_STEP, _LAST_STEP = 0.2, 0.08
_ATTEMPTS = 8


class Auto:
    """Asks what each family can spare, allocates accordingly, and goes on from there.

    1. The identity; one width for all.
    2. Three rounds, or fewer where their probes would be more than ``probed`` of all trials. Each
       probes some widths and every family alone a fifth narrower, then asks for the allocation
       at which the next channels of all families cost the same loss for each MAC. The first
       round probes halfway from the best widths so far to the whole network, since a network
       that is cut too far for its loss to say anything has no slopes; the others the best widths.
    3. Moves from one of the ``elite`` best plans that keep the cost: exchanges between a few
       families, or one or two moved and all others by the same share the other way. The step
       falls in a straight line over ``trials``, from a fifth of a family's channels to 8 %.

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
        families = len(ranker.widths.full)
        rounds = int(probed * trials) // (families + 1)
        every = [(base, *range(families), _ALLOCATION) for base in _BASES[:rounds]]
        self._steps = [*_FIRST, *itertools.chain.from_iterable(every)]
        self._base = self._moves.widths(self._moves.uniform())
        self._bases: dict[bytes, tuple[IntArray, float]] = {}
        self._probes: list[tuple[IntArray, float]] = []
        self._allocated_near: list[IntArray] = []
        self._next = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"name": "auto", "probed": self._probed, "elite": self._elite, "part": PART}

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        step = self._steps[number] if number < len(self._steps) else "child"
        if step == "identity":
            return Candidate(number, self._ranker.compensation.identity(), step)
        if step == UNIFORM:
            return self._candidate(number, self._moves.widths(self._moves.uniform()), step)
        if step == _HALFWAY:
            self._base = halfway(self._ranker.widths, self._best_widths())
        if step == _BEST:
            self._base = self._best_widths()
        if step in (_HALFWAY, _BEST):
            return self._candidate(number, self._base, PROBE)
        if isinstance(step, int):
            probe = narrower_by_one(self._ranker.widths, self._base, step)
            return self._candidate(number, probe, PROBE)
        if step == _ALLOCATION:
            return self._candidate(number, self._allocated(), step)
        return self._child(number)

    def tell(self, candidate: Candidate, loss: float) -> None:
        number = candidate.number
        self._next = max(self._next, number + 1)
        if candidate.origin == _ALLOCATION:
            self._allocated_near.append(self._best_widths())
        if candidate.origin != PROBE:
            self._told.add(candidate, loss)
            return
        widths = self._ranker.probed(candidate.latent)
        self._probes.append((widths, loss))
        # What was told need not have been asked for.
        if number < len(self._steps) and self._steps[number] in (_HALFWAY, _BEST):
            self._base = widths
            self._bases[widths.tobytes()] = (widths, loss)

    def _best_widths(self) -> IntArray:
        best = self._told.best(1)
        return self._moves.widths(best[0].levels if best else self._moves.uniform())

    def _allocated(self) -> IntArray:
        """What all probes so far say, near the best widths; half as far where that failed."""
        widths, near = self._ranker.widths, self._best_widths()
        rounds = [self._curves(*base) for base in self._bases.values()]
        curves = Curves.mean(rounds) if rounds else Curves.around(near, (), widths.full)
        failed = sum(1 for tried in self._allocated_near if (tried == near).all())
        allocation = allocate(widths, near, curves, reach=0.5**failed)
        return self._moves.widths(self._moves.filled(self._moves.levels(allocation)))

    def _curves(self, base: IntArray, base_loss: float) -> Curves:
        """By the widths of probes, since a search that goes on has numbers of its own."""
        probes = [
            (int(family), int(probe[family]), loss - base_loss)
            for probe, loss in self._probes
            if np.count_nonzero(probe != base) == 1
            for family in np.flatnonzero(probe != base)
        ]
        return Curves.around(base, probes, self._ranker.widths.full)

    def _child(self, number: int) -> Candidate:
        generator = trial_generator(self._seed, number)
        best = self._told.best(self._elite)
        parent = best[generator.integers(len(best))] if best else None
        start = self._moves.uniform() if parent is None else parent.levels
        step = max(_LAST_STEP, _FIRST_STEP * (1 - number / self._trials))
        for _ in range(_ATTEMPTS):
            move = self._moves.exchanged if generator.random() < 0.5 else self._moves.shifted
            levels = move(start, step, generator)
            if not self._told.knows(levels):
                break
            step *= 1.5
        widths = self._moves.widths(levels)
        return self._candidate(number, widths, "child", None if parent is None else parent.number)

    def _candidate(
        self, number: int, widths: IntArray, origin: str, parent: int | None = None
    ) -> Candidate:
        return Candidate(number, self._ranker.widths.latent(widths), origin, parent)
