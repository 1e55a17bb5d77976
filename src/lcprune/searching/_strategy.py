"""What proposes masks and learns from their loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from lcprune._checks import instance, integer, is_iterable, refused
from lcprune.graph import BoolArray, FloatArray
from lcprune.ranking import Ranker

MOST_TRIALS = 10**9


def check_strategy(ranker: object, trials: object, seed: object, steps: object) -> None:
    """``InputError`` for what no strategy can be made of."""
    instance("ranker", ranker, Ranker, "a Ranker")
    integer("trials", trials, 1, MOST_TRIALS)
    integer("seed", seed, 0)
    integer("steps", steps, 0)


def latents_of(start: object, ranker: Ranker) -> tuple[FloatArray, ...]:
    """The latents to start from, checked; ``InputError`` where they are none."""
    if isinstance(start, str | Mapping) or not is_iterable(start):
        raise refused("start", start, "a list of latents")
    found = []
    for latent in cast(Iterable[Any], start):
        if latent is None:
            raise refused("a start", latent, "a latent")
        found.append(ranker.read_latent(latent))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask to try: ``keep``, bool [prunable], is true for the groups that stay.

    ``steps`` is how many steps of training it gets before it is measured. ``share`` is of the
    images that it is measured on, the first ones, where the fitness can be measured on a part.
    One that is not ``final`` may be above the budget: it tells where to go on, and is never the
    result. A ``reference`` is named among the finalists, where several are asked for, whatever
    its loss: a plan that people know, which a fitness measured before any training may underrate.

    ``note`` is JSON, what a strategy keeps of its own with a candidate. Where it has a ``latent``
    [families][parameters], that goes into the plan as the β that gave it; ``origin`` (how it was
    made) and ``parent`` (the number of another candidate) are for readers of the journal.
    """

    number: int
    keep: BoolArray
    share: float = 1.0
    final: bool = True
    note: Mapping[str, Any] = field(default_factory=dict)
    reference: bool = False
    steps: int = 0


class Strategy(Protocol):
    """Asked for a candidate, then told its loss, again and again.

    All randomness of candidate n comes from ``trial_generator(seed, n)``. A strategy that was
    told the first n losses, whether it had been asked for those candidates or not, goes on like
    one that was asked and told all along: so a search continues from its journal. What it is
    told is as it comes from the journal, with a note that was written as JSON and read again.

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


def ranked(
    ranker: Ranker,
    number: int,
    latent: FloatArray,
    origin: str,
    parent: int | None = None,
    reference: bool = False,
    steps: int = 0,
) -> Candidate:
    """The candidate that a latent gives within the budget, with that latent in its note."""
    note: dict[str, Any] = {"origin": origin, "latent": latent.tolist()}
    if parent is not None:
        note["parent"] = parent
    keep = ranker.keep(latent)
    return Candidate(number, keep, note=note, reference=reference, steps=steps)
