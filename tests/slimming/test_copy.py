"""Copies of module trees are what ``copy.deepcopy`` makes."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict, deque, namedtuple
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lcprune.slimming._copy import copied
from networks import random_network

Pair = namedtuple("Pair", "first second")


class Slotted(nn.Module):
    __slots__ = ("extra",)


class OwnWay(nn.Module):
    """Says itself how it is copied."""

    copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnWay:
        made = OwnWay()
        made.copies = 1
        return made


class OwnState(nn.Linear):
    """Drops a part of itself on the way."""

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),  # type: ignore[no-untyped-call]
            "dropped": None,
        }


class Holding(nn.Module):
    """Holds all kinds of things beside parameters and children."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
        self.again = self.layer
        self.tied = nn.Linear(3, 4)
        self.other = nn.Linear(3, 4)
        self.other.weight = self.tied.weight
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("kept", torch.arange(6).view(2, 3))
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.register_buffer("nothing", None)
        self.way, self.state, self.slotted = OwnWay(), OwnState(2, 2), Slotted()
        self.names = ["a", ["b", self.layer], {"c": self.tied.weight}]
        self.same_names = self.names
        self.pair = Pair(self.layer, [1])
        self.pairs = (self.pair, (1, 2), self.kept)
        self.queue = deque([self.norm])
        self.table = OrderedDict(one={1, 2}, two=frozenset({3}))
        self.members = {"x", "y"}
        self.call = functools.partial(self.layer.extra_repr)
        self.method = self.layer.forward
        self.kind = nn.Conv2d
        self.names.append(self.names)  # a cycle


def walk(one: Any, other: Any, pairs: dict[int, int]) -> Iterator[tuple[Any, Any]]:
    """All that is reached from both, side by side; ``pairs`` is what stands for what."""
    yield one, other
    if id(one) in pairs:
        return
    pairs[id(one)] = id(other)
    if isinstance(one, nn.Module):
        assert list(vars(one)) == list(vars(other))
        parts = [(vars(one)[name], vars(other)[name]) for name in vars(one)]
    elif isinstance(one, dict):
        assert list(one) == list(other)
        parts = [(one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple | deque):
        assert len(one) == len(other)
        parts = list(zip(one, other, strict=True))
    elif hasattr(one, "__self__") and not isinstance(one.__self__, type(torch)):
        parts = [(one.__self__, other.__self__)]
    elif isinstance(one, functools.partial):
        parts = [(one.func, other.func)]
    else:
        parts = []
    for a, b in parts:
        yield from walk(a, b, pairs)


def check_equal(one: nn.Module, other: nn.Module) -> None:
    """Equal in type, content and in what is the same object as what."""
    pairs: dict[int, int] = {}
    for a, b in walk(one, other, pairs):
        assert type(a) is type(b)
        if isinstance(a, Tensor):
            assert torch.equal(a, b)
            assert (a.dtype, a.stride(), a.requires_grad) == (b.dtype, b.stride(), b.requires_grad)
        if isinstance(a, int | str | set | frozenset):
            assert a == b
    assert len(set(pairs.values())) == len(pairs)


@pytest.mark.parametrize("shared", [False, True])
def test_all_that_a_module_can_hold(shared: bool) -> None:
    model = Holding()
    parameters = {id(p): p for p in model.parameters()} if shared else {}
    expected = copy.deepcopy(model, dict(parameters))
    made = copied(model, dict(parameters))
    check_equal(made, expected)
    check_equal(made, copy.deepcopy(made))
    assert isinstance(made, Holding)
    assert (
        made.again is made.layer is made.pair.first is made.queue[0] or made.queue[0] is made.norm
    )
    assert made.same_names is made.names is made.names[-1]
    assert getattr(made.method, "__self__") is made.layer  # noqa: B009
    assert made.way.copies == 1
    assert (made.tied.weight is model.tied.weight) == shared
    assert made.kept is not model.kept


@given(seed=st.integers(0, 10_000))
def test_random_networks(seed: int) -> None:
    model, example = random_network(seed)
    made = copied(model, {})
    check_equal(made, copy.deepcopy(model))
    with torch.no_grad():
        assert torch.equal(made(example), model(example))
        for tensor in made.state_dict().values():
            tensor.zero_()
    check_equal(model, random_like(model, seed))


def random_like(model: nn.Module, seed: int) -> nn.Module:
    """The network of the same seed with the weights of ``model``."""
    other, _ = random_network(seed)
    other.load_state_dict(model.state_dict())
    return other


def test_what_a_forward_put_by_loses_its_history() -> None:
    model = nn.Linear(2, 2)
    model.seen = model(torch.ones(1, 2))  # type: ignore[assignment]
    model.all_seen = [model.seen, deque([model.seen])]  # type: ignore[assignment]
    made = copied(model, {})
    assert torch.equal(made.seen, model.seen)  # type: ignore[arg-type]
    assert made.seen is made.all_seen[0] is made.all_seen[1][0]  # type: ignore[index]
    assert made.seen is not model.seen
    assert made.seen.is_leaf  # type: ignore[union-attr]
