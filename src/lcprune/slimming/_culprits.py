"""Which of many changes make a check fail: bisection, and delta debugging where they interact."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Items = tuple[int, ...]
Fails = Callable[[Items], bool]


def culprits(items: Sequence[int], fails: Fails) -> list[Items]:
    """Disjoint minimal sets of ``items`` that fail, until what is left does not.

    ``fails`` tells whether a check fails when exactly these items are changed; of no items at
    all it does not. For n items it is asked once if nothing fails. A single item that fails
    costs at most 2 log2(n) + 2 questions (rounded up), a set of k that fail only together at
    most k times as many, and all sets together at most about 2n where every item fails alone.

    Source: Zeller, "Yesterday, my program worked. Today, it does not. Why?", ESEC/FSE 1999;
    Junker, "QuickXplain: preferred explanations and relaxations", AAAI 2004.
    """
    left = tuple(items)
    found: list[Items] = []
    while left and fails(left):
        found += _within(left, fails)
        taken = {item for culprit in found for item in culprit}
        left = tuple(item for item in left if item not in taken)
    return found


def _within(items: Items, fails: Fails) -> list[Items]:
    """Minimal sets within ``items``, which fail."""
    if len(items) == 1:
        return [items]
    halves = _halves(items)
    found = [culprit for half in halves if fails(half) for culprit in _within(half, fails)]
    # Neither half fails but both do: what interacts is spread over both.
    return found or [tuple(sorted(_across(*halves, (), fails)))]


def _across(first: Items, second: Items, changed: Items, fails: Fails) -> Items:
    """What it takes of both for a failure, where ``changed`` is changed in any case."""
    of_second = _needed(second, (*changed, *first), fails)
    of_first = _needed(first, (*changed, *of_second), fails)
    return (*of_first, *of_second)


def _needed(items: Items, changed: Items, fails: Fails) -> Items:
    """A minimal part of ``items`` that fails together with ``changed``."""
    if len(items) == 1:
        return items
    first, second = _halves(items)
    for half in (first, second):
        if fails((*changed, *half)):
            return _needed(half, changed, fails)
    return _across(first, second, changed, fails)


def _halves(items: Items) -> tuple[Items, Items]:
    middle = len(items) // 2
    return items[:middle], items[middle:]
