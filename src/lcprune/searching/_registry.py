"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lcprune.errors import InputError
from lcprune.ranking import Ranker
from lcprune.searching._auto import Auto
from lcprune.searching._evolution import Evolution
from lcprune.searching._random_search import RandomSearch
from lcprune.searching._strategy import Strategy

STRATEGIES: Mapping[str, Callable[[Ranker, int, int], Strategy]] = {
    "auto": Auto,
    "evolution": lambda ranker, trials, seed: Evolution(ranker.compensation, trials, seed),
    "random": lambda ranker, trials, seed: RandomSearch(ranker.compensation, trials, seed),
}
"""Strategies by name, made from a ranker, the number of trials, and a seed."""


def choose_strategy(strategy: str | Strategy, ranker: Ranker, trials: int, seed: int) -> Strategy:
    """The strategy of that name; an object is returned as it is.

    Raises ``InputError`` for an unknown name.
    """
    if not isinstance(strategy, str):
        return strategy
    if strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise InputError(f"unknown strategy {strategy!r}, expected one of {known}")
    return STRATEGIES[strategy](ranker, trials, seed)
