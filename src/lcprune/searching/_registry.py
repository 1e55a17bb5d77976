"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lcprune.errors import InputError
from lcprune.ranking import Compensation
from lcprune.searching._evolution import Evolution
from lcprune.searching._random_search import RandomSearch
from lcprune.searching._strategy import Strategy

STRATEGIES: Mapping[str, Callable[[Compensation, int, int], Strategy]] = {
    "evolution": Evolution,
    "random": RandomSearch,
}
"""Strategies by name, made from a compensation, the number of trials, and a seed."""


def choose_strategy(
    strategy: str | Strategy, compensation: Compensation, trials: int, seed: int
) -> Strategy:
    """The strategy of that name; an object is returned as it is.

    Raises ``InputError`` for an unknown name.
    """
    if not isinstance(strategy, str):
        return strategy
    if strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise InputError(f"unknown strategy {strategy!r}, expected one of {known}")
    return STRATEGIES[strategy](compensation, trials, seed)
