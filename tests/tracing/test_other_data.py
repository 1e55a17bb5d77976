"""Data that take other ways than the example: a pruned network runs on them all the same."""

from __future__ import annotations

import copy
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
from order import few

DRAWS = torch.Generator().manual_seed(0)
IMAGES = [torch.randn(1, 3, 8, 8, generator=DRAWS) * scale for scale in (0.1, 0.5, 1, 2, 10, 50)]
IMAGES += [-image for image in IMAGES]


def conv(i: int, o: int) -> nn.Sequential:
    """Two convolutions, so that there is something inside to prune."""
    return nn.Sequential(nn.Conv2d(i, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, o, 3, padding=1))


class Parts(nn.Module):
    experts_used, gated = 3, True

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 8), nn.Conv2d(8, 4, 1)
        self.experts = nn.ModuleList([conv(8, 8) for _ in range(self.experts_used)])
        if self.gated:
            self.gate = nn.Linear(8, 3)

    def scores(self, x: Tensor) -> Tensor:
        return self.gate(x.mean((2, 3)))


class HardRouting(Parts):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.experts[int(self.scores(x).argmax(1)[0])](x))


class RoutesByItem(Parts):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.experts[self.scores(x).topk(1).indices[0, 0].item()](x))


class Threshold(Parts):
    """One branch or the identity, whose channels meet only where the branch runs."""

    experts_used = 2

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.scores(x).max() > 0.5:
            x = self.experts[0](x)
        elif float(self.scores(x).min()) < -0.5:
            x = x + self.experts[1](x)
        return self.head(x)


class EarlyExit(Parts):
    gated = False

    def __init__(self) -> None:
        super().__init__()
        self.exits = nn.ModuleList([nn.Conv2d(8, 4, 1) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x
        for expert, leave in zip(self.experts, self.exits, strict=True):
            x = expert(x)
            y = leave(x).mean((2, 3))
            if y.softmax(1).max().item() > 0.6:
                return y
        return y


class Loop(Parts):
    """A layer as often as it takes: its outputs are its inputs only from the second time on."""

    experts_used, gated = 1, False

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(5):
            x = self.experts[0](x)
            if x.norm().item() > 60:
                break
        return self.head(x)


class LoopByNumber(Parts):
    experts_used, gated = 1, False

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(min(4, 1 + int(x.abs().mean() > 0.5) + int(x.abs().mean() > 2))):
            x = self.experts[0](x)
        return self.head(x)


class Router(Parts):
    """Hands the decision on as a number."""

    experts_used = 0

    def forward(self, x: Tensor) -> Any:
        return int(self.scores(self.stem(x)).argmax(1)[0])


class RoutedElsewhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.parts = Router(), Parts()

    def forward(self, x: Tensor) -> Tensor:
        taken = self.router(x)
        x = self.parts.stem(x)
        y = self.parts.experts[taken](x)
        return self.parts.head(x + y if taken == 2 else y)


class Nested(nn.Module):
    """A block of experts within a network that is otherwise ordinary."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 3, 3, padding=1))
        self.inner = HardRouting()
        self.last = nn.Sequential(nn.Conv2d(4, 7, 1), nn.Conv2d(7, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.first(x) + x))


class Sparse(Parts):
    """Every sample to its expert, without a loop over all: experts without samples are left out."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        taken = self.scores(x).argmax(1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = (taken == number).nonzero().flatten()
            if mine.numel():
                out[mine] = expert(x[mine])
        return self.head(out)


class InTraining(Parts):
    """Decides by data, or by a draw, in training only."""

    gated = False

    def __init__(self, decide: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.decide = decide

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.training:
            x = x + self.experts[1 if self.decide(x) else 2](x)
        return self.head(self.experts[0](x))


class Logs(Parts):
    """Reads numbers, and decides nothing by them; two experts are of no use."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.norm = x.norm().item()
        if self.training:
            self.log = float(x.mean()), x.std().item() * 2
        return self.head(self.experts[0](x))


@torch.no_grad()
def runs(model: nn.Module, graph: ChannelGraph) -> None:
    """Random plans leave networks that run on every image, in both modes."""
    for seed in range(3):
        plan = plan_of(graph, random_keep(graph, np.random.default_rng(seed)))
        small = slim(model, plan)
        for mode in (False, True):
            small.train(mode)
            for image in IMAGES:
                assert small(torch.cat([image, image * 2])).shape[0] == 2
                small(image)


MODELS = {kind.__name__: kind for kind in (HardRouting, RoutesByItem, Threshold, EarlyExit, Loop,
          LoopByNumber, RoutedElsewhere, Nested, Sparse)}  # fmt: skip


def ways(model: nn.Module) -> int:
    """How many sets of modules run on the images: without several there is nothing to see."""
    seen, ran = set(), list[str]()
    for name, module in model.eval().named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    for image in IMAGES:
        model(image)
        seen.add(tuple(ran))
        ran.clear()
    return len(seen)


def branching(kind: Callable[[], nn.Module]) -> nn.Module:
    """A network of the kind whose values make it take most of its ways on the images."""
    models = [randomise(kind(), seed) for seed in range(30)]
    best = max(models, key=lambda model: ways(copy.deepcopy(model)))
    assert ways(copy.deepcopy(best)) > 1
    return best


@pytest.mark.parametrize("kind", few(MODELS.values(), 3), ids=MODELS)
def test_a_network_that_branches_by_data_runs_on_any(kind: Callable[[], nn.Module]) -> None:
    model = branching(kind)
    for image in (IMAGES[0], IMAGES[2], IMAGES[5]):
        graph = trace(model, image)
        assert graph.prunable >= 6
        runs(model, graph)


def test_the_reason_names_what_was_not_reached_and_what_helps() -> None:
    graph = trace(randomise(Sparse(), 0), IMAGES[2])
    reasons = {u.tensor: u.reason for u in graph.untouched}
    missed = [name for name in ("experts.0", "experts.1", "experts.2")
              if reasons.get(f"{name}.0.weight") == "not reached by the forward"]  # fmt: skip
    assert len(missed) == 2
    assert reasons["stem.2.weight"] == (
        f"{missed[0]} was not reached, but may be on other data: further examples help"
    )
    assert graph.dimension("stem.0.weight", 0).channels.max() < graph.prunable


@pytest.mark.parametrize("kind", few(MODELS.values(), 3), ids=MODELS)
def test_one_example_is_as_good_as_many_where_decisions_can_be_inverted(
    kind: Callable[[], nn.Module],
) -> None:
    model = branching(kind)
    graphs = [trace(model, image) for image in (IMAGES[0], IMAGES[2], IMAGES[5])]
    if kind is Sparse:  # it branches by shapes
        assert not any(graph.prunable > 12 for graph in graphs)
        return
    whole = trace(model, list(IMAGES))
    assert {graph.prunable for graph in graphs} == {whole.prunable}
    for graph in graphs:
        for dimension in whole.dimensions:
            pinned = [(d.channels >= d_graph.prunable).tolist() for d_graph, d in
                      ((whole, dimension), (graph, graph.dimension(*dimension.key)))]  # fmt: skip
            assert pinned[0] == pinned[1], dimension.key


def test_experts_deep_inside_leave_the_rest_free() -> None:
    graph = trace(randomise(Nested(), 0), IMAGES[2])
    assert graph.dimension("first.0.weight", 0).channels.max() < graph.prunable
    assert graph.dimension("last.0.weight", 0).channels.max() < graph.prunable


@pytest.mark.parametrize("kind", few(MODELS.values(), 3), ids=MODELS)
def test_further_examples_are_followed(kind: Callable[[], nn.Module]) -> None:
    model = branching(kind)
    graph = trace(model, list(IMAGES))
    for image in IMAGES[:6:2]:
        assert graph.prunable >= trace(model, image).prunable
    runs(model, graph)


DECISIONS: dict[str, Callable[[Tensor], bool]] = {
    "data": lambda x: bool(x.mean() > 0),
    "item": lambda x: 1 - x.mean().item() > 1,
    "draw": lambda x: bool(torch.rand(1) < 0.5),
    "drawn number": lambda x: int(torch.randint(0, 2, (1,))) == 1,
}


@pytest.mark.parametrize("decide", DECISIONS.values(), ids=DECISIONS)
def test_what_training_decides_by_data_or_by_a_draw_stays_too(
    decide: Callable[[Tensor], bool],
) -> None:
    model = randomise(InTraining(decide), 0)
    graph = trace(model, IMAGES[2])
    assert graph.training_checked
    assert not graph.dimensions or graph.prunable
    runs(model, graph)


def test_numbers_that_are_read_for_a_log_decide_nothing() -> None:
    model = randomise(Logs(), 0)
    graph = trace(model, IMAGES[2])
    assert graph.prunable == 6 + 8 + 6 + 8
    runs(model, graph)


def test_a_check_of_the_input_alone_keeps_nothing() -> None:
    class Checks(Parts):
        experts_used, gated = 1, False

        def forward(self, x: Tensor) -> Tensor:
            if x.abs().max() > 3:
                x = x / x.abs().max()
            if not torch.isfinite(x).all():
                raise ValueError("not finite")
            return self.head(self.experts[0](self.stem(x)))

    model = randomise(Checks(), 0)
    graph = trace(model, IMAGES[2])
    assert graph.prunable == 6 + 8 + 6 + 8
    runs(model, graph)


def test_a_skip_by_a_draw_costs_no_channels() -> None:
    class Skips(Parts):
        gated = False

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for expert in self.experts:
                if not self.training or torch.rand(1) < 0.5:
                    x = x + expert(x)
            return self.head(x)

    graph = trace(randomise(Skips(), 0), IMAGES[2])
    assert graph.prunable == 8 + 4 * 6
    runs(Skips(), graph)


def test_an_unused_head_costs_no_channels() -> None:
    class Unused(Parts):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.experts[0](self.stem(x)))

    graph = trace(Unused(), IMAGES[2])
    assert graph.prunable == 6 + 8 + 6 + 8
    assert ("gate.weight", "not reached by the forward") in {
        (u.tensor, u.reason) for u in graph.untouched
    }
