"""The oracle: slimmed equals masked, on random networks and on known ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from known import NETWORKS, traced
from lcprune.errors import VerificationError
from lcprune.slimming import VISIBLE, difference, effect, slim, verify
from lcprune.tracing import trace
from networks import random_network
from oracle import check, plan_of, random_keep, randomise


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_slimmed_equals_masked_on_random_networks(seed: int) -> None:
    compare(seed)


@pytest.mark.thorough
@settings(max_examples=200)
@given(seed=st.integers(0, 10**6))
def test_slimmed_equals_masked_on_many_random_networks(seed: int) -> None:
    compare(seed)


def compare(seed: int) -> None:
    model, example = random_network(seed)
    randomise(model, seed)
    graph = trace(model, example)
    assume(graph.prunable > 0)
    seen = check(model, example, seed, graph)
    assert seen.error <= 1e-9
    assume(seen.effect > 1e-3)  # a comparison that could not see counts as none


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(s, marks=pytest.mark.thorough) for s in range(6, 12))]
)
def test_random_networks_are_not_blind(seed: int) -> None:
    model, example = random_network(seed)
    randomise(model, seed)
    effects = [check(model, example, draw).effect for draw in range(3)]
    assert max(effects) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_slimmed_equals_masked_on_known_networks(name: str) -> None:
    model, example, graph = traced(name)
    seen = check(model, example, 3, graph)
    assert seen.error <= 1e-9
    assert seen.effect > 1e-3


def _chain() -> tuple[nn.Module, torch.Tensor]:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sigmoid(), nn.Conv2d(8, 8, 3), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(8 * 16, 4),
    )  # fmt: skip
    return randomise(model, 5), torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("key", [("0.weight", 0), ("1.running_mean", 0), ("3.weight", 1)])
def test_two_kept_indices_swapped_are_found(key: tuple[str, int]) -> None:
    model, example = _chain()
    graph = trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    small = slim(model, plan)
    assert verify(model, small, plan, example) <= 1e-9
    name, dim = key
    tensor = dict([*small.named_parameters(), *small.named_buffers()])[name].data
    tensor.copy_(tensor.index_select(dim, torch.tensor([1, 0, *range(2, tensor.shape[dim])])))
    with pytest.raises(VerificationError, match="differs from the masked original"):
        verify(model, small, plan, example)


def test_another_channel_removed_in_one_tensor_is_found() -> None:
    model, example = _chain()
    graph = trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    removed = next(i for i in range(8) if i not in plan.kept["3.weight", 1])
    wrong = tuple(sorted((*plan.kept["3.weight", 1][1:], removed)))
    small = slim(model, dataclasses.replace(plan, kept={**plan.kept, ("3.weight", 1): wrong}))
    with pytest.raises(VerificationError):
        verify(model, small, plan, example)


def test_a_slimmed_model_that_does_not_run_is_a_verification_error() -> None:
    model, example = _chain()
    graph = trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    kept = {key: value for key, value in plan.kept.items() if key != ("3.weight", 1)}
    with pytest.raises(VerificationError, match="the slimmed model fails: RuntimeError"):
        verify(model, slim(model, dataclasses.replace(plan, kept=kept)), plan, example)


class OnlyFloat32(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3)
        self.b = nn.Conv2d(6, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float64:
            raise TypeError("float32 only")
        return self.b(torch.sigmoid(self.a(x)))


def test_a_model_that_refuses_float64_is_compared_in_float32() -> None:
    model, example = randomise(OnlyFloat32(), 0), torch.randn(1, 3, 8, 8)
    graph = trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    small = slim(model, plan)
    assert difference(model, small, plan, example).precision == torch.float32
    assert verify(model, small, plan, example) <= 1e-4


def test_not_a_number_never_passes() -> None:
    model, example = _chain()
    graph = trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    small = slim(model, plan)
    with torch.no_grad():
        next(small.parameters()).fill_(float("nan"))
    with pytest.raises(VerificationError):
        verify(model, small, plan, example)


class CastsDown(nn.Module):
    """Attention-like code that computes in float32 whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second((y.float() / 3).sigmoid().to(y.dtype)).mean((2, 3))


def test_a_cast_to_less_within_the_model_does_not_blur_the_comparison() -> None:
    model = randomise(CastsDown(), 0)
    example = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    graph = trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    seen = difference(model, slim(model, plan), plan, example)
    assert seen.precision == torch.float64
    assert seen.evaluation <= 1e-14


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_the_effect_of_a_removal_tells_a_comparison_that_sees_nothing(scale: float) -> None:
    model, example = _chain()
    graph = trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    with torch.no_grad():
        list(model.parameters())[-2].mul_(scale)  # the last weight: else a constant comes out
    assert (effect(model, plan, example) > VISIBLE) == (scale > 0)
    assert verify(model, slim(model, plan), plan, example) <= 1e-9
