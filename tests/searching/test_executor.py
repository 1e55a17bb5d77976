"""A candidate is what slimming and preparing make of the model, whatever is done only once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lcprune.fitness import CrossEntropy, Precision, recalibrate
from lcprune.ranking import Plan
from lcprune.searching._executor import Evaluator, Stopwatch
from lcprune.slimming import slim
from lcprune.tracing import trace
from networks import random_network
from oracle import plan_of, random_keep, randomise


class Tied(nn.Module):
    """Shares weights and a buffer between layers, and counts its runs in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.second.weight = self.first.weight
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 5)
        self.register_buffer("factor", torch.full((6, 1, 1), 1.25))
        self.first.register_buffer("factor", self.factor)
        self.runs = [0]

    def forward(self, input: Tensor) -> Tensor:
        self.runs[0] += 1
        mixed = torch.tanh(self.first(input)) + self.second(input) * self.factor
        output: Tensor = self.head(self.norm(mixed).mean((2, 3)))
        return output * min(self.runs[0], 2)


def plans_of(model: nn.Module, example: Tensor, count: int, seed: int) -> list[Plan]:
    graph = trace(model, example)
    rng = np.random.default_rng(seed)
    return [plan_of(graph, random_keep(graph, rng)) for _ in range(count)]


def described(model: nn.Module) -> list[object]:
    """All about a model's tensors, and which of them are the same."""
    order: dict[int, int] = {}
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return [
        (
            name,
            order.setdefault(id(tensor), len(order)),
            tensor.dtype,
            tensor.stride(),
            tensor.requires_grad,
            tensor.tolist(),
        )
        for name, tensor in named
    ]


def check(model: nn.Module, plans: list[Plan], example: Tensor, precision: Precision) -> None:
    """In the given order, each plan gives the model, and the loss, that it gives alone."""
    images = torch.randn(6, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    batches = [precision.cast(images[:4])]
    fitness = CrossEntropy(images, torch.arange(6) % 5, 4, precision)
    seen: list[object] = []

    def watching(candidate: nn.Module) -> float:
        seen.append([described(candidate), str(candidate)])
        return fitness(candidate)

    before = described(model)
    for measure in (fitness, watching):
        evaluator = Evaluator(model, measure, batches, precision.apply, 0)
        for plan in plans:
            alone = precision.apply(slim(model, plan))
            recalibrate(alone, batches)
            fresh = CrossEntropy(images, torch.arange(6) % 5, 4, precision)
            expected = [described(alone), str(alone)]
            assert evaluator.loss(plan, plan.digest, Stopwatch()) == fresh(alone)
            assert not seen or seen[-1] == expected
    assert len(seen) == len(plans)
    assert described(model) == before


precisions = st.builds(
    Precision, st.sampled_from(["float32", "bfloat16"]), st.booleans(), st.just(4)
)


def check_random(seed: int, precision: Precision) -> None:
    model, example = random_network(seed)
    first, second = plans_of(randomise(model, seed), example, 2, seed)
    check(model, [first, second, first], example, precision)


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), precision=precisions)
def test_random_networks_and_plans(seed: int, precision: Precision) -> None:
    check_random(seed, precision)


@pytest.mark.thorough
@given(seed=st.integers(0, 10_000), precision=precisions)
def test_many_random_networks_and_plans(seed: int, precision: Precision) -> None:
    check_random(seed, precision)


@settings(max_examples=8)
@given(precision=precisions)
def test_shared_tensors_and_state_of_its_own(precision: Precision) -> None:
    model = randomise(Tied(), 0)
    example = torch.randn(1, 3, 4, 4)
    check(model, plans_of(model, example, 3, 0), example, precision)


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_a_share_is_of_the_images_of_both_recalibration_and_fitness(share: float) -> None:
    model = randomise(Tied(), 0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 3, 4, 4, generator=generator)
    labels = torch.arange(40) % 5
    (plan,) = plans_of(model, images[:1], 1, 0)
    batches = list(images.split(6))
    evaluator = Evaluator(model, CrossEntropy(images, labels, 6), batches, None, 0)
    count = int(40 * share)
    expected = slim(model, plan)
    recalibrate(expected, images[:count].split(6))
    loss = CrossEntropy(images[:count], labels[:count], 6)(expected)
    assert evaluator.loss(plan, "", Stopwatch(), share) == loss
    assert evaluator.loss(plan, "", Stopwatch()) != loss


def test_what_can_not_be_divided_is_measured_whole() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 0)
    seen: list[str] = []

    def fitness(_: nn.Module) -> float:
        seen.append("fitness")
        return 0.0

    def recalibration(_: nn.Module) -> None:
        seen.append("recalibration")

    evaluator = Evaluator(model, fitness, recalibration, None, 0)
    evaluator.loss(Plan(kept={}), "", Stopwatch(), 0.25)
    assert seen == ["recalibration", "fitness"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_itself_stays_in_its_type(dtype: str) -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2)), 0)
    seen: list[str] = []

    def fitness(candidate: nn.Module) -> float:
        seen.extend({str(p.dtype).removeprefix("torch.") for p in candidate.parameters()})
        return 0.0

    plan = Plan(kept={})
    Evaluator(model, fitness, None, Precision(dtype).apply, 0).loss(plan, "", Stopwatch())
    assert seen == [dtype]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_function_that_prepares_gets_what_slimming_made() -> None:
    model, example = random_network(3)
    (plan,) = plans_of(randomise(model, 3), example, 1, 3)
    seen: list[object] = []

    def prepare(candidate: nn.Module) -> nn.Module:
        seen.append(described(candidate))
        return nn.Sequential(candidate, nn.Identity())

    def fitness(candidate: nn.Module) -> float:
        return float(len(candidate))  # type: ignore[arg-type]

    assert Evaluator(model, fitness, None, prepare, 0).loss(plan, "", Stopwatch()) == 2
    assert seen == [described(slim(model, plan))]
