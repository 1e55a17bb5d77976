"""Decisions that come out otherwise, and draws outside of PyTorch: all their ways are followed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcprune.graph import ChannelGraph
from lcprune.slimming import slim
from lcprune.testing import random_keep
from lcprune.tracing import trace
from oracle import plan_of, randomise

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def conv(i: int, o: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1)


class Chain(nn.Module):
    """Two convolutions with ``between`` in between, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 6), conv(6, 8), nn.Linear(8, 4)
        self.parts()

    def parts(self) -> None:
        pass

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Any:
        return self.head(self.b(self.between(self.a(x).relu())).mean((2, 3)))


FREE = 6 + 8
"""The channels of a ``Chain`` whose decisions cost nothing."""

# -- checks, and whatever raises ------------------------------------------------------------------


def raises(x: Tensor) -> Tensor:
    if torch.isnan(x).any():
        raise ValueError(f"not a number: {x.flatten().tolist()}")
    return x


def asserts(x: Tensor) -> Tensor:
    assert x.abs().max() < 1e6
    assert bool(torch.isfinite(x).all())
    return x


def clamps(x: Tensor) -> Tensor:
    if torch.isinf(x).any() or x.abs().max().item() > 1e4:
        x = x.clamp(-1e4, 1e4)
    return x


def scales(x: Tensor) -> Tensor:
    if (norm := x.norm()) > 1:
        x = x / norm
    return x * float(1 / x.abs().max())


def validates(x: Tensor) -> Tensor:
    return x * torch.distributions.Normal(x.mean(), x.std()).stddev


def counts(x: Tensor) -> Tensor:
    return x * int((x > 0).sum())


def truth_of_a_number(x: Tensor) -> Tensor:
    return x / x.sum() if x.sum() else x


def shifts(x: Tensor) -> Tensor:
    return x.roll(int(x.sum()) % 8, 3)


def waits(x: Tensor) -> Tensor:
    while x.norm() > 1:
        x = x / 2
    return x


CHEAP = {
    f.__name__: f
    for f in (raises, asserts, clamps, scales, validates, counts, truth_of_a_number, shifts, waits)
}


@pytest.mark.parametrize("unused", [False, True])
@pytest.mark.parametrize("between", CHEAP.values(), ids=CHEAP)
def test_what_joins_nothing_costs_nothing(
    between: Callable[[Tensor], Tensor], unused: bool
) -> None:
    class Checks(Chain):
        def parts(self) -> None:
            if unused and between not in (counts, scales, shifts):  # numbers may choose a module
                self.spare = conv(6, 6)

        def between(self, x: Tensor) -> Tensor:
            return between(x)

    assert trace(randomise(Checks(), 0), IMAGE).prunable == FREE


# -- other ways, each of which couples something or returns something -----------------------------


class Early(Chain):
    """It returns what is inside, on data that the example is not of."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if x.mean() > 1e3:
            return x
        return self.head(self.b(x).mean((2, 3)))


class Nested(Chain):
    """The second decision is met only where the first comes out otherwise."""

    def parts(self) -> None:
        self.c, self.d = conv(6, 6), conv(6, 6)

    def between(self, x: Tensor) -> Tensor:
        if x.norm() > 1e6:
            y = self.c(x)
            if y.norm().item() > 1e6:
                return x + self.d(y)
            return y
        return x


class Both(Chain):
    """A module that runs where two decisions come out otherwise."""

    def parts(self) -> None:
        self.c = conv(6, 6)

    def between(self, x: Tensor) -> Tensor:
        loud, bright = bool(x.norm() > 1e6), bool(x.mean() > 1e6)
        return self.c(x) if loud and bright else x


class ByRank(Chain):
    """The number of a module, at every layer another one."""

    def parts(self) -> None:
        self.layers = nn.ModuleList(nn.ModuleList([conv(6, 6) for _ in range(3)]) for _ in range(2))

    def between(self, x: Tensor) -> Tensor:
        for choices in self.layers:
            x = choices[x.sum().long() % 3](x).relu()
        return x


class Skips(Chain):
    """Layers that are left out by data; the example leaves out none."""

    def parts(self) -> None:
        self.layers = nn.ModuleList([conv(6, 6) for _ in range(5)])

    def between(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if x.norm() < 1e6:
                x = layer(x).relu()
        return x


class InsideOfModules(Chain):
    """The same decision in many modules, one after the other."""

    def parts(self) -> None:
        class Maybe(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = conv(6, 6)

            def forward(self, x: Tensor) -> Tensor:
                return self.inner(x).relu() if bool((x > -1e6).all()) else x

        self.maybe = nn.Sequential(*(Maybe() for _ in range(4)))

    def between(self, x: Tensor) -> Tensor:
        return self.maybe(x)


WAYS = {kind.__name__: kind for kind in (Nested, Both, Skips, InsideOfModules)}


def coupled(graph: ChannelGraph, *tensors: str) -> bool:
    """Whether the filters of all tensors are the same channels."""
    first, *others = (graph.dimension(tensor, 0).channels.tolist() for tensor in tensors)
    return all(other == first for other in others)


@pytest.mark.parametrize("kind", WAYS.values(), ids=WAYS)
def test_whatever_the_other_ways_join_is_joined_and_nothing_else(kind: Callable[[], Chain]) -> None:
    model = randomise(kind(), 0)
    graph = trace(model, IMAGE)
    inner = [n for n, p in model.named_parameters()
             if p.dim() == 4 and not n.startswith(("a.", "b."))]  # fmt: skip
    assert graph.prunable == FREE
    assert coupled(graph, "a.weight", *inner)


def test_modules_that_a_number_chooses_are_coupled_layer_by_layer() -> None:
    graph = trace(randomise(ByRank(), 0), IMAGE)
    assert graph.prunable == FREE + 2 * 6
    for layer in range(2):
        assert coupled(graph, *(f"layers.{layer}.{n}.weight" for n in range(3)))


def test_what_another_way_returns_is_an_output() -> None:
    graph = trace(randomise(Early(), 0), IMAGE)
    assert {u.tensor: u.reason for u in graph.untouched}["a.weight"] == "an output of the model"
    assert graph.prunable == 8


def test_a_way_that_does_not_end_is_left_and_its_channels_stay() -> None:
    class Endless(Chain):
        def between(self, x: Tensor) -> Tensor:
            while x.norm() * 0 != 0:  # never true of a number
                x = x + 1
            while self.goes_on(x):
                x = x + 1
            return x

        def goes_on(self, x: Tensor) -> bool:
            self.first = not getattr(self, "first", False)
            return bool(x.norm() > 1e6) or not (self.first or x.norm() > -1)

    graph = trace(randomise(Endless(), 0), IMAGE)
    assert graph.prunable == FREE  # once round is enough

    class Trapped(Chain):
        def between(self, x: Tensor) -> Tensor:
            if x.norm() > 1e6:
                while True:
                    x = x + 1
            return x

    graph = trace(randomise(Trapped(), 0), IMAGE)
    reasons = {u.tensor: u.reason for u in graph.untouched}
    assert reasons["a.weight"] == (
        "the control flow of the model depends on data: further examples help"
    )


def test_more_decisions_than_are_followed_keep_their_channels() -> None:
    source = "\n".join(f"    if x.sum() > {10**6 + n}: x = x + {n}" for n in range(20))
    space: dict[str, Any] = {}
    exec(f"def between(self, x):\n{source}\n    return x", space)
    many = type("Many", (Chain,), {"between": space["between"]})
    assert trace(randomise(many(), 0), IMAGE).prunable == 0


def test_what_a_model_puts_by_on_another_way_is_gone() -> None:
    class Puts(Chain):
        def parts(self) -> None:
            self.seen: list[int] = []
            self.register_buffer("count", torch.zeros(()))

        def between(self, x: Tensor) -> Tensor:
            if x.norm() > 1e6:
                self.seen.append(1)
                self.other = True
                self.count += 1
            assert not self.seen
            assert not hasattr(self, "other")
            assert float(self.count) == 0
            return x

    model = randomise(Puts(), 0)
    model.count.zero_()
    graph = trace(model, IMAGE)
    assert graph.training_checked
    assert graph.prunable == FREE


# -- draws ----------------------------------------------------------------------------------------


GENERATOR = torch.Generator().manual_seed(0)


class Drops(Chain):
    """Layers that are left out at random in training."""

    def __init__(self, drop: Callable[[Chain, int], bool]) -> None:
        super().__init__()
        self.drop = drop

    def parts(self) -> None:
        self.layers = nn.ModuleList([conv(6, 6) for _ in range(4)])
        self.own, self.numpy = random.Random(0), np.random.default_rng(0)

    def between(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            if not (self.training and self.drop(self, number)):
                x = layer(x).relu()
        return x


DROPS: dict[str, Callable[[Drops, int], bool]] = {
    "python": lambda m, n: random.random() < 0.5,
    "rarely": lambda m, n: random.random() < 1e-6,
    "mostly": lambda m, n: random.uniform(0, 1) < 1 - 1e-6,
    "choice": lambda m, n: random.choice([False, False, True]),
    "integer": lambda m, n: random.randint(0, 9) == 9,
    "numpy": lambda m, n: np.random.rand() < 0.2,  # noqa: NPY002
    "numpy rarely": lambda m, n: np.random.random() < 1e-9,  # noqa: NPY002
    "numpy integer": lambda m, n: np.random.randint(2) == 1,  # noqa: NPY002
    "numpy array": lambda m, n: np.random.rand(4)[n] < 0.5,  # noqa: NPY002
    "own": lambda m, n: m.own.random() < 0.5,
    "own numpy": lambda m, n: m.numpy.random() < 0.5,
    "torch": lambda m, n: bool(torch.rand(1) < 1e-6),
    "item": lambda m, n: torch.rand(()).item() < 1e-6,
    "float": lambda m, n: float(torch.rand(1)) < 0.3,
    "torch integer": lambda m, n: int(torch.randint(0, 9, (1,))) == 3,
    "torch list": lambda m, n: torch.rand(4).tolist()[n] < 0.5,
    "torch generator": lambda m, n: torch.rand((), generator=GENERATOR).item() < 1e-6,
    "permutation": lambda m, n: n in torch.randperm(4)[:2].tolist(),
}


@torch.no_grad()
def trains(model: nn.Module, graph: ChannelGraph) -> None:
    """A random plan leaves a network that runs in training mode, whatever is drawn."""
    small = slim(model, plan_of(graph, random_keep(graph, np.random.default_rng(0)))).train()
    for seed in range(20):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        small(torch.cat([IMAGE, IMAGE]))


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
def test_layers_that_a_draw_leaves_out_are_coupled(drop: Callable[[Chain, int], bool]) -> None:
    model = randomise(Drops(drop), 0)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    graph = trace(model, IMAGE)
    assert graph.training_checked
    assert states[0] == random.getstate()
    assert states[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(states[2], torch.get_rng_state())
    assert graph.prunable == FREE
    assert coupled(graph, "a.weight", *(f"layers.{n}.weight" for n in range(4)))
    trains(model, graph)


class Draws(Chain):
    """One of several layers, drawn in training; a spare one is never used."""

    def __init__(self, choose: Callable[[list[Any]], Any]) -> None:
        super().__init__()
        self.choose = choose

    def parts(self) -> None:
        self.layers = nn.ModuleList([conv(6, 6) for _ in range(7)])
        self.spare = conv(6, 6)

    def between(self, x: Tensor) -> Tensor:
        return x + self.choose(list(self.layers))(x) if self.training else x


CHOICES: dict[str, Callable[[list[Any]], Any]] = {
    "choice": lambda layers: random.choice(layers),
    "randrange": lambda layers: layers[random.randrange(7)],
    "numpy": lambda layers: layers[np.random.choice(7)],  # noqa: NPY002
    "torch": lambda layers: layers[torch.randint(7, ())],
    "multinomial": lambda layers: layers[torch.multinomial(torch.ones(7), 1).item()],
}


@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
def test_modules_that_a_draw_chooses_are_all_reached(choose: Callable[[list[Any]], Any]) -> None:
    model = randomise(Draws(choose), 0)
    graph = trace(model, IMAGE)
    assert graph.prunable == FREE
    assert coupled(graph, "a.weight", *(f"layers.{n}.weight" for n in range(7)))
    assert {u.tensor for u in graph.untouched} == {"head.weight", "spare.weight"}
    trains(model, graph)


def test_code_that_draws_until_a_number_suits_it_goes_on() -> None:
    def drop(model: Chain, number: int) -> bool:
        while not 0.4 < random.random() < 0.6:
            pass
        return random.betavariate(2, 2) < 0.5

    assert trace(randomise(Drops(drop), 0), IMAGE).prunable == FREE


def test_a_network_without_decisions_runs_once_in_each_mode() -> None:
    class Counts(Chain):
        runs = 0

        def between(self, x: Tensor) -> Tensor:
            type(self).runs += 1
            if self.training:
                x = torch.dropout(x, 0.5, True) + torch.randn_like(x)
            self.log = x.norm().item()
            return x

    trace(randomise(Counts(), 0), IMAGE)
    assert Counts.runs == 2
