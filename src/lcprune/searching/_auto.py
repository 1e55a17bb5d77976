"""Probes, an allocation, and moves that a surrogate of the loss has chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from lcprune._checks import integer, number
from lcprune.graph import BoolArray, FloatArray, IntArray
from lcprune.ranking import Ranker, Widths
from lcprune.searching._strategy import (
    Candidate,
    check_strategy,
    latents_of,
    ranked,
    trial_generator,
)
from lcprune.searching._surrogate import Surrogate, Told

PART = 0.25
"""The share of the images that probes are measured on."""

_PROPOSALS = 256
_PROMOTED = 64

# A move: how many families at most, by which shares of their levels, and in what steps of a share
# the others make room.
_MOST_MOVED = 6
_MOVE = (0.05, 0.5)
_SHARES = 256

# A probe is this much of a family's width; how loss grows with what is removed; and the least
# factor, as a part of the median one.
_PROBED = 0.8
_POWER = 2.0
_LEAST = 0.1

# An allocation: steps to a family's narrowest, and how far from the best widths it may go.
_STEPS = 32
_NARROWEST, _WIDEST = 0.6, 1.5


@dataclass(frozen=True, eq=False)
class _Point:
    """Levels [families] that were tried, and their loss: of a probe, or after some steps."""

    number: int
    levels: IntArray
    loss: float
    probe: bool
    trained: bool

    @property
    def key(self) -> tuple[bool, bool, bytes]:
        return self.probe, self.trained, self.levels.tobytes()


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
    is the cut of the latent of its widths. A probe, which is not final, is measured on ``PART`` of
    the images, and keeps what its latent scores at least 0, whatever the budget.

    Latents to ``start`` from come before the identity, and spare the probes.

    With ``steps`` losses after so many steps of training count in the end, each ``price`` times
    the work of one without. All of the above but moves is tried without; then what is within the
    budget of these is trained. Each move is measured in the way that is expected to tell most for
    its work; plans that were tried without are trained where that is more. The last trial is
    trained in any case.

    Example:
        strategy = Auto(ranker, trials=400)
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
        probed: float = 0.25,
        elite: int = 8,
        start: Sequence[FloatArray] = (),
        steps: int = 0,
        price: float = 10.0,
    ) -> None:
        check_strategy(ranker, trials, seed, steps)
        started = latents_of(start, ranker)
        number("probed", probed, 0, less_than=1)
        integer("elite", elite, 1)
        number("price", price, more_than=0)
        self._ranker = ranker
        self._widths = ranker.widths
        self._seed = seed
        self._probed = probed
        self._elite = elite
        self._trials = trials
        self._train = steps
        self._price = price
        self._moves = Moves(ranker.widths)
        self._surrogate = Surrogate(ranker.widths.full)
        self._points: dict[tuple[bool, bool, bytes], _Point] = {}
        self._base: _Point | None = None
        self._next = 0
        families = len(ranker.widths.full)
        self._steps: list[Callable[[int], Candidate]] = [
            *(partial(self._started, latent) for latent in started),
            *(self._identity, self._uniform),
        ]
        self._base_number = len(self._steps)
        if families + 1 <= probed * trials and not started:
            narrower = [partial(self._narrower, family) for family in range(families)]
            self._steps += [self._halfway, *narrower, self._allocation]
        plans = [*self._steps[: self._base_number], *self._steps[self._base_number :][-1:]]
        self._steps += [partial(self._trained, step) for step in plans if steps]

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "name": "auto",
            "probed": self._probed,
            "elite": self._elite,
            "proposals": _PROPOSALS,
            "part": PART,
            **({"price": self._price} if self._train else {}),
        }

    def ask(self) -> Candidate:
        number = self._next
        self._next += 1
        if number >= len(self._steps):
            return self._child(number)
        candidate = self._steps[number](number)
        return replace(candidate, steps=self._train) if self._is_last(number) else candidate

    def _is_last(self, number: int) -> bool:
        return number == self._trials - 1

    def tell(self, candidate: Candidate, loss: float) -> None:
        self._next = max(self._next, candidate.number + 1)
        levels = self._moves.levels(self._widths.of(candidate.keep))
        trained = candidate.steps > 0
        point = _Point(candidate.number, levels, loss, not candidate.final, trained)
        if math.isfinite(loss):
            self._points.setdefault(point.key, point)
        # Asked for with fewer trials, too few for probes, it was none.
        if point.probe and point.number == self._base_number:
            self._base = point

    def _started(self, latent: FloatArray, number: int) -> Candidate:
        return ranked(self._ranker, number, latent, "start")

    def _identity(self, number: int) -> Candidate:
        return ranked(self._ranker, number, self._ranker.compensation.identity(), "identity")

    def _uniform(self, number: int) -> Candidate:
        return self._plan(number, self._moves.uniform(), "uniform", reference=True)

    def _trained(self, step: Callable[[int], Candidate], number: int) -> Candidate:
        return replace(step(number), steps=self._train)

    def _halfway(self, number: int) -> Candidate:
        return self._probe(number, self._base_levels())

    def _narrower(self, family: int, number: int) -> Candidate:
        base = self._base_levels() if self._base is None else self._base.levels
        widths = narrower_by_one(self._widths, self._moves.widths(base), family)
        return self._probe(number, self._moves.levels(widths))

    def _base_levels(self) -> IntArray:
        best = self._moves.widths(self._elites()[0])
        return self._moves.levels(halfway(self._widths, best))

    def _allocation(self, number: int) -> Candidate:
        """What the probes say, near the best widths."""
        best = self._moves.widths(self._elites()[0])
        curves = Curves.around(best, (), self._widths.full)
        if self._base is not None:
            base, base_loss = self._moves.widths(self._base.levels), self._base.loss
            probes = [
                (int(family), int(self._moves.widths(point.levels)[family]), point.loss - base_loss)
                for point in self._points.values()
                if point.probe and np.count_nonzero(point.levels != self._base.levels) == 1
                for family in np.flatnonzero(point.levels != self._base.levels)
            ]
            curves = Curves.around(base, probes, self._widths.full)
        levels = self._moves.filled(allocate(self._moves, best, curves))
        return self._plan(number, levels, "allocation")

    def _child(self, number: int) -> Candidate:
        generator = trial_generator(self._seed, number)
        elite = self._elites()
        starts = elite[generator.integers(len(elite), size=_PROPOSALS)]
        proposals = self._moves.around(starts, generator)
        levels: IntArray = elite[0]
        trained = self._train > 0
        for proposal, trained in self._promising(proposals, self._is_last(number)):
            levels = self._moves.filled(proposal, generator.permutation(len(proposal)))
            if (False, trained, levels.tobytes()) not in self._points:
                break
        return self._plan(number, levels, "child", steps=self._train if trained else 0)

    def _promising(self, proposals: IntArray, last: bool) -> list[tuple[IntArray, bool]]:
        """Levels, and whether they are to be trained, those first that promise most for their work.

        From ``proposals`` [n, families] and, where training is possible, from the best plans that
        were tried without; ``last`` leaves those out that are not trained.
        """
        points = list(self._points.values())
        told = Told(
            self._moves.widths(np.stack([point.levels for point in points] or [self._moves.top])),
            np.array([point.loss for point in points]),
            np.array([point.probe for point in points]),
            np.array([point.trained for point in points]),
        )
        if not self._train:
            if not (len(self._best(2)) == 2 and len(proposals)):
                return [(levels, False) for levels in proposals]
            gains = self._surrogate.improvements(told, self._moves.widths(proposals))
            return [(proposals[i], False) for i in np.argsort(-gains, kind="stable")]
        tried = [point.levels for point in self._best(_PROMOTED, trained=False)]
        pool = np.concatenate(
            [np.array(tried, dtype=np.int64).reshape(-1, len(self._moves.top)), proposals]
        )
        if len(points) < 2 or not np.count_nonzero(told.trained):
            return [(levels, True) for levels in pool]
        cheap, dear = self._surrogate.by_kind(told, self._moves.widths(pool))
        cheap[: len(tried)] = -math.inf
        worth = np.concatenate(
            [np.full(len(pool), -math.inf) if last else cheap, dear / self._price]
        )
        order = np.argsort(-worth, kind="stable")
        return [(pool[i % len(pool)], i >= len(pool)) for i in order if np.isfinite(worth[i])]

    def _elites(self) -> IntArray:
        """Levels of the best plans, of those trained and of all others in equal parts."""
        trained = self._best(self._elite // 2, trained=True) if self._train else []
        best = [*trained, *self._best(self._elite - len(trained), trained=False)]
        return np.stack([point.levels for point in best] or [self._moves.uniform()])

    def _best(self, count: int, trained: bool = False) -> list[_Point]:
        """The ``count`` lowest losses within the budget, ascending, of one kind."""
        plans = [p for p in self._points.values() if not p.probe and p.trained == trained]
        return sorted(plans, key=lambda point: (point.loss, point.number))[:count]

    def _plan(
        self,
        number: int,
        levels: IntArray,
        origin: str,
        reference: bool = False,
        steps: int = 0,
    ) -> Candidate:
        latent = self._widths.latent(self._moves.widths(levels))
        return ranked(self._ranker, number, latent, origin, reference=reference, steps=steps)

    def _probe(self, number: int, levels: IntArray) -> Candidate:
        latent = self._widths.latent(self._moves.widths(levels))
        note = {"origin": "probe", "latent": latent.tolist()}
        return Candidate(number, self._ranker.at_least_0(latent), PART, False, note)


class Moves:
    """Exchanges of cost between families, in levels: positions in ``Widths.rungs``.

    Levels are int64 [..., families]; ``top`` is the highest of each, all groups of the family;
    ``space`` is the widths that they are levels of.
    """

    def __init__(self, widths: Widths) -> None:
        self.space = widths
        self.top: IntArray = np.array([len(rungs) - 1 for rungs in widths.rungs], dtype=np.int64)
        # One array for all: the families' rungs one after the other.
        self._joined = np.concatenate(widths.rungs)
        self._starts = np.cumsum([0, *(self.top[:-1] + 1)])
        self._even = all(_even(np.diff(rungs).tolist()) for rungs in widths.rungs)

    def widths(self, levels: IntArray) -> IntArray:
        """The widths of levels [..., families]."""
        widths: IntArray = self._joined[self._starts + levels]
        return widths

    def levels(self, widths: npt.NDArray[Any]) -> IntArray:
        """The highest levels that are no wider than ``widths`` [families]; at least 0."""
        found = [
            np.searchsorted(rungs, width, side="right") - 1
            for rungs, width in zip(self.space.rungs, widths, strict=True)
        ]
        return np.maximum(np.array(found, dtype=np.int64), 0)

    def uniform(self) -> IntArray:
        """The same share of every family, as wide as fits."""
        most = int((self.top if self._even else self.space.full).max())
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self._fit(self._share(middle / max(most, 1))):
                low = middle
            else:
                high = middle - 1
        return self.filled(self._share(low / max(most, 1)))

    def _share(self, share: float) -> IntArray:
        """The levels of the same share of every family, counted from its lowest one."""
        if self._even:
            levels: IntArray = np.floor(share * self.top).astype(np.int64)
            return levels
        lowest = np.array([rungs[0] for rungs in self.space.rungs], dtype=np.int64)
        return self.levels(lowest + share * (self.space.full - lowest))

    def between(self, narrow: IntArray, wide: IntArray) -> IntArray:
        """The levels on the way from ``narrow`` to ``wide`` widths [families], as far as fits.

        All families go the same share of their way, and what is left is ``filled``; ``uniform``
        where even ``narrow`` does not fit.
        """

        def on_the_way(share: int) -> IntArray:
            return self.levels(narrow + share / _SHARES * (wide - narrow))

        if not self._fit(on_the_way(0)):
            return self.uniform()
        low, high = 0, _SHARES
        while low < high:
            middle = (low + high + 1) // 2
            if self._fit(on_the_way(middle)):
                low = middle
            else:
                high = middle - 1
        return self.filled(on_the_way(low))

    def around(self, starts: IntArray, generator: np.random.Generator) -> IntArray:
        """Levels near ``starts`` [n, families] that fit, at most one for each.

        One to six families move, wider or narrower, each by a normal step whose scale is 5 to
        50 % of its levels; all others move by one share of theirs, as wide as fits. Some of the
        widths are left: what is asked for has to be ``filled``.
        """
        count, families = starts.shape
        if families == 1:  # nobody to make room
            return starts
        most = min(_MOST_MOVED, families - 1)
        order = generator.random(starts.shape).argsort(axis=1)
        moved = order < generator.integers(1, most + 1, size=(count, 1))
        low_step, high_step = _MOVE
        scale = low_step * (high_step / low_step) ** generator.random((count, 1))
        step = np.rint(scale * self.top * generator.standard_normal(starts.shape))
        step = np.where(step == 0, generator.choice([-1, 1], size=starts.shape), step)
        moves = np.clip(starts + np.where(moved, step, 0), 0, self.top).astype(np.int64)
        low, high = np.full((count, 1), -_SHARES), np.full((count, 1), _SHARES)
        while (low < high).any():
            middle = (low + high + 1) // 2
            fit = self._fit(self._others_by(moves, moved, middle / _SHARES))[:, None]
            low, high = np.where(fit, middle, low), np.where(fit, high, middle - 1)
        children = self._others_by(moves, moved, low / _SHARES)
        return children[self._fit(children)]

    def _others_by(self, levels: IntArray, moved: BoolArray, shares: FloatArray) -> IntArray:
        """All but the ``moved`` families wider by a share of all their levels."""
        wider = np.rint(levels + shares * self.top).astype(np.int64)
        return np.where(moved, levels, np.clip(wider, 0, self.top))

    def filled(self, levels: IntArray, order: IntArray | None = None) -> IntArray:
        """``levels`` [families], widened in turns, in ``order``, until no family can be."""
        order = np.arange(len(levels)) if order is None else order
        while True:
            wider = self._can_widen(levels)
            if not wider.any():
                return levels
            for family in order[wider[order]]:
                levels = self._widened(levels, family, max(1, int(self.top[family]) // 16))

    def _can_widen(self, levels: IntArray) -> BoolArray:
        """Of each family, whether it alone can be one level wider."""
        each = np.minimum(levels + np.eye(len(levels), dtype=np.int64), self.top)
        can: BoolArray = (levels < self.top) & self._fit(each)
        return can

    def _widened(self, levels: IntArray, family: int, most: int) -> IntArray:
        """One family as much wider as fits, by at most ``most`` levels."""
        most = min(most, int(self.top[family] - levels[family]))
        wider = np.repeat(levels[None], most, axis=0)
        wider[:, family] += np.arange(1, most + 1)
        result = levels.copy()
        result[family] += np.count_nonzero(self._fit(wider))
        return result

    def _fit(self, levels: IntArray) -> BoolArray:
        return self.space.fit(self.widths(levels))


def between(ranker: Ranker, narrow: IntArray, wide: IntArray) -> FloatArray:
    """A latent for widths between ``narrow`` and ``wide``, int64 [families], that fit the budget.

    So the best plans of two other budgets become one to ``start`` from at a budget between.
    """
    moves = Moves(ranker.widths)
    return ranker.widths.latent(moves.widths(moves.between(narrow, wide)))


def _even(steps: list[int]) -> bool:
    """Whether a share of levels is one of widths: equal steps, of which the last may lack some."""
    return len(set(steps[:-1])) <= 1 and (len(steps) < 2 or steps[-1] <= steps[0])


Probe = tuple[int, int, float]
"""A family, the width that it alone was narrowed to, and what that added to the loss."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Excess loss as ``factor * removed^2`` for every family; ``removed`` is the share in 0..1.

    ``full`` is all groups of each family, int64 [families]; ``factors`` float64 [families].

    Example:
        curves = Curves.around(np.array([12, 20]), [(0, 10, 0.3), (1, 16, 0.1)], np.array([16, 32]))
        excess = curves.excess(np.array([[12, 32], [8, 30]]))
    """

    full: IntArray
    factors: FloatArray

    @classmethod
    def around(cls, widths: IntArray, probes: Iterable[Probe], full: IntArray) -> Curves:
        """From probes that were narrowed from ``widths``, int64 [families].

        Where a family's probe says less than a tenth of the median factor, that tenth is taken:
        so small a difference is noise. A family without a probe has the median.
        """
        found: dict[int, float] = {}
        for family, width, excess in probes:
            steps = (1 - np.array([width, widths[family]]) / full[family]) ** _POWER
            if np.isfinite(excess) and width < widths[family]:
                found[family] = excess / float(steps[0] - steps[1])
        positive = [factor for factor in found.values() if factor > 0]
        middle = float(np.median(positive)) if positive else 1.0
        factors = np.full(len(full), middle)
        for family, factor in found.items():
            factors[family] = max(factor, _LEAST * middle)
        return cls(full, factors)

    def excess(self, widths: IntArray) -> FloatArray:
        """What each family adds, float64 like ``widths`` [..., families]."""
        result: FloatArray = self.factors * (1 - widths / self.full) ** _POWER
        return result


def halfway(widths: Widths, target: IntArray) -> IntArray:
    """Between ``target`` [families] and all groups: the same factor below these as above it."""
    wide = np.sqrt(target * widths.full.astype(np.float64))
    return np.array(
        [
            rungs[np.abs(rungs - width).argmin()]
            for rungs, width in zip(widths.rungs, wide, strict=True)
        ],
        dtype=np.int64,
    )


def narrower_by_one(widths: Widths, around: IntArray, family: int) -> IntArray:
    """``around`` [families] with one family narrower by a fifth, by one step at least."""
    rungs = widths.rungs[family]
    lower = rungs[rungs < around[family]]
    probe = around.copy()
    if len(lower):
        probe[family] = lower[np.abs(lower - _PROBED * around[family]).argmin()]
    return probe


def allocate(moves: Moves, near: IntArray, curves: Curves) -> IntArray:
    """The levels at which the next channels of all families cost the same loss for each MAC.

    No family ends narrower than three fifths of its width in ``near`` [families], or wider than
    one and a half times that: farther away the curves say little. From the widest on, the
    family whose next channels are predicted to cost least loss for what they save of the bounds
    that don't hold yet is narrowed, by a thirty-second of its channels at a time, until all hold.
    """
    space = moves.space
    families = np.arange(len(near))
    steps = np.maximum(1, (moves.top + 1) // _STEPS)
    levels, lowest = moves.levels(_WIDEST * near), moves.levels(_NARROWEST * near)
    while not space.fit(now := moves.widths(levels)):
        lower = np.maximum(levels - steps, np.minimum(lowest, levels))
        narrower = np.tile(now, (len(now), 1))
        narrower[families, families] = moves.widths(lower)
        costs = space.costs(now)
        over = costs > space.limits
        saved = ((costs - space.costs(narrower)) / space.limits)[:, over].sum(axis=1)
        lost = curves.excess(np.diagonal(narrower)) - curves.excess(now)
        price = np.where(saved > 0, lost / np.maximum(saved, 1e-12), np.inf)
        if not np.isfinite(price).any():
            # No family alone lowers a maximum that several of them reach.
            price = np.where(lower < levels, lost, np.inf)
        if not np.isfinite(price).any():
            break
        family = int(price.argmin())
        levels[family] = lower[family]
    return levels
