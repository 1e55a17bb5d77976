"""Folding with a graph that is found once is folding."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lcprune.fitness import CrossEntropy, Precision, folded
from lcprune.fitness import _folding as module_under_test
from lcprune.fitness._folding import Folding
from lcprune.models import build, state_sha256
from lcprune.slimming import slim
from lcprune.tracing import trace
from networks import random_network
from oracle import plan_of, random_keep, randomise


def candidates(model: nn.Module, example: Tensor, count: int, seed: int) -> list[nn.Module]:
    """Models cut out of one at random, with random weights and statistics."""
    graph = trace(model, example)
    rng = np.random.default_rng(seed)
    cut = [slim(model, plan_of(graph, random_keep(graph, rng))) for _ in range(count)]
    return [randomise(small, seed + index) for index, small in enumerate(cut)]


def check(models: list[nn.Module], images: Tensor, folding: Folding) -> list[nn.Module]:
    """Every model runs as if it had been folded alone, and is left as it was."""
    results = []
    for model in models:
        before = state_sha256(model)
        result = folding.of(model)
        with torch.no_grad():
            assert torch.equal(result(images), folded(model)(images))
        assert state_sha256(model) == before
        results.append(result)
    return results


def count_traces(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """What is followed by torch.fx from here on for a folding."""
    seen: list[nn.Module] = []
    original = module_under_test._recipe

    def counted(model: nn.Module) -> object:
        seen.append(model)
        return original(model)

    monkeypatch.setattr(module_under_test, "_recipe", counted)
    return seen


def test_a_type_that_is_asked_for_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Typed(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            first = next(self.parameters())
            output: Tensor = super().forward(input.to(first.device, first.dtype))
            return output

    seen, folding = count_traces(monkeypatch), Folding()
    models = [
        randomise(Typed(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width)), 0) for width in (4, 5, 6)
    ]
    check(models, torch.randn(2, 3, 2, 2), folding)
    assert len(seen) == 1
    assert not isinstance(folding.of(models[0]), torch.fx.GraphModule)
    check([model.double() for model in models], torch.randn(2, 3, 2, 2), folding)
    assert len(seen) == 2


@given(seed=st.integers(0, 10_000))
def test_candidates_of_random_networks(seed: int) -> None:
    model, example = random_network(seed)
    images = torch.randn(3, *example.shape[1:], generator=torch.Generator().manual_seed(seed))
    check(candidates(randomise(model, seed), example, 4, seed), images, Folding())


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_mobilenet_v2", "torchvision/resnet18"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_zoo_networks_are_followed_once(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.startswith("torchvision"):
        pytest.importorskip("torchvision")
    seen = count_traces(monkeypatch)
    model = randomise(build(name, classes=5, input_shape=(3, 32, 32)), 0)
    precision = Precision(dtype, True, 2)
    models = [precision.apply(m) for m in candidates(model, torch.randn(1, 3, 32, 32), 3, 0)]
    images = precision.cast(torch.randn(2, 3, 32, 32))
    results = check(models, images, Folding())
    assert len(seen) == 1
    assert not any(isinstance(result, torch.fx.GraphModule) for result in results)


class Asking(nn.Module):
    """A convolution with a norm; ``ask`` is what the forward asks it for."""

    def __init__(self, channels: int, ask: Callable[[Asking], int]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, channels, 1), nn.BatchNorm2d(channels)
        self.register_buffer("table", torch.ones(channels))
        self.register_parameter("scale", nn.Parameter(torch.ones(channels, 1, 1)))
        self.ask = ask

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.norm(self.conv(input)) * self.scale
        return output.flatten(1) * self.ask(self)


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.conv.out_channels,
        lambda m: 3 if m.conv.out_channels > 4 else 2,
        lambda m: 3 if m.conv.out_channels == 4 else 2,
        lambda m: len(list(range(m.norm.num_features))),
        lambda m: next(m.parameters()).shape[0],
        lambda m: len(next(m.buffers())),
        lambda m: m.table.shape[0],
        lambda m: vars(m)["_buffers"]["table"].numel(),
        lambda m: m.conv.weight.data.shape[0],
        lambda m: m.conv.weight.size(0),
        lambda m: int(f"{m.conv.out_channels}"),
        lambda m: float(vars(m.norm)["eps"]) * m.norm.num_features,
        lambda m: m.scale.sum() + m.table.sum(),
        lambda m: torch.arange(m.conv.out_channels).sum(),
        lambda m: torch.arange(4).sum(),
    ],
)
def test_a_forward_that_asks_for_widths_gets_each_models_own(ask: Callable[..., int]) -> None:
    models = [randomise(Asking(channels, ask), channels) for channels in (4, 5, 4, 7)]
    check(models, torch.randn(2, 3, 2, 2), Folding())


def test_what_changes_in_a_model_between_calls_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
            self.factor = 2.0

        def forward(self, input: Tensor) -> Tensor:
            output: Tensor = self.body(input) * self.factor
            return output

    model, folding, images = randomise(Scaled(), 0), Folding(), torch.randn(2, 3, 4, 4)
    assert isinstance(model, Scaled)

    def scale() -> None:
        model.factor = 3.0

    def replace() -> None:
        model.body[2] = nn.Sigmoid()

    def extend() -> None:
        model.body.append(nn.Tanh())

    def hook() -> None:
        model.body[0].register_forward_hook(lambda *args: args[2] + 1)

    def patch() -> None:
        monkeypatch.setattr(Scaled, "forward", lambda self, input: -self.body(input))

    outputs = []
    for change in (scale, replace, extend, hook, patch):
        check([model], images, folding)
        outputs.append(folding.of(model)(images))
        change()
        check([model], images, folding)
        assert not torch.equal(outputs[-1], model(images))


def test_it_travels_without_what_it_found() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten()), 0)
    fitness = CrossEntropy(torch.randn(6, 3, 1, 1), torch.arange(6) % 4, 2)
    loss = fitness(model)
    assert pickle.loads(pickle.dumps(fitness))(model) == loss
    assert copy.deepcopy(fitness)(model) == loss


def test_models_that_keep_changing_are_followed_each_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, folding = count_traces(monkeypatch), Folding()
    models = [
        randomise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), *[nn.ReLU()] * layers), 0)
        for layers in range(module_under_test.STRUCTURES + 2)
    ]
    check(models, torch.randn(2, 3, 2, 2), folding)
    assert len(seen) == module_under_test.STRUCTURES
