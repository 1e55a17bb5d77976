"""Random numbers that a model draws outside of PyTorch: noticed, and drawn otherwise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, cycle, repeat
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

LAST = 1 - 2**-53
"""The largest number that is drawn from 0 to 1."""

SHARES = ((0.0,), (LAST,), (0.0, LAST), (LAST, 0.0))
"""Draws from 0 to 1, in turn: what happens rarely happens always, never, and every other time."""

FINER = tuple((share / 16,) for share in range(1, 16))
"""Draws that choose among many."""

SEEDS = 8
"""How many seeds are tried where there are ``SHARES`` as well."""

PATIENCE = 1000
"""How many numbers are given before they are random again: code may draw until one suits it."""


def state() -> tuple[Any, ...]:
    """The state of Python's and NumPy's global generators."""
    return random.getstate(), _of_numpy(np.random.get_state())  # noqa: NPY002


def state_of(model: nn.Module) -> list[Any]:
    """The state of the generators that modules hold."""
    found: list[Any] = []
    for leaf in chain.from_iterable(tree_leaves(vars(module)) for module in model.modules()):
        if isinstance(leaf, random.Random):
            found.append(leaf.getstate())
        elif isinstance(leaf, np.random.RandomState):
            found.append(_of_numpy(leaf.get_state()))
        elif isinstance(leaf, np.random.Generator):
            found.append(repr(leaf.bit_generator.state))
    return found


def _of_numpy(state: Any) -> tuple[Any, ...]:
    return tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in state)


@contextmanager
def generators_put_back(model: nn.Module) -> Iterator[None]:
    """A context in which global generators begin at 0; their states are put back."""
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=sorted(d or 0 for d in devices)):
            seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


def seed(number: int) -> None:
    """Seed PyTorch's generator on the CPU, Python's and NumPy's."""
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002


@contextmanager
def drawing(shares: Sequence[float]) -> Iterator[None]:
    """A context in which Python's and NumPy's global generators draw ``shares`` of 0 to 1, in turn.

    Of n things they draw the one at that share, NumPy's where they draw a single one.
    """
    then = random.Random(0)
    numbers = chain(
        (share for share, _ in zip(cycle(shares), range(PATIENCE), strict=False)),
        (then.random() for _ in repeat(None)),
    )

    def one() -> float:
        return next(numbers)

    def below(count: int) -> int:
        return int(next(numbers) * count)

    def between(low: Any, high: Any = None, *_: Any, **__: Any) -> int:
        first, last = (0, low) if high is None else (low, high)
        return int(first) + below(int(last) - int(first))

    def among(things: Any, *_: Any, **__: Any) -> Any:
        return below(things) if isinstance(things, int) else things[below(len(things))]

    def shaped(size: Any = None) -> Any:
        return one() if size is None else np.reshape([one() for _ in range(np.prod(size))], size)

    arrays: dict[str, Callable[..., Any]]
    arrays = {"random": shaped, "random_sample": shaped}
    arrays |= {"rand": lambda *size: shaped(size or None)}
    arrays |= {
        name: _single(function, getattr(np.random, name), positional)
        for name, function, positional in (("randint", between, 2), ("choice", among, 1))
    }
    with ExitStack() as changes:
        changes.enter_context(patch.object(random, "random", one))
        python = getattr(random, "_inst", None)
        if python is not None:  # whose methods the functions of the module are
            changes.enter_context(patch.object(python, "random", one))
            changes.enter_context(patch.object(python, "_randbelow", below))
        for name, function in arrays.items():
            changes.enter_context(patch.object(np.random, name, function))
        yield


def _single(
    function: Callable[..., Any], original: Callable[..., Any], positional: int
) -> Callable[..., Any]:
    """``function`` where a single thing is drawn, otherwise ``original``."""

    def draw(*args: Any, **kwargs: Any) -> Any:
        if len(args) > positional or kwargs.get("size") is not None or "dtype" in kwargs:
            return original(*args, **kwargs)
        return function(*args, **kwargs)

    return draw
