"""Slimming yields an ordinary module and leaves the original alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lcprune.errors import InputError
from lcprune.models import build
from lcprune.ranking import Plan
from lcprune.slimming import slim
from lcprune.tracing import trace
from networks import random_network
from oracle import plan_of, random_keep, randomise


def _pruned(seed: int = 0) -> tuple[nn.Module, Plan, torch.Tensor]:
    model, example = random_network(seed)
    randomise(model, seed)
    graph = trace(model, example)
    return model, plan_of(graph, random_keep(graph, np.random.default_rng(seed))), example


def test_the_original_is_untouched_and_shares_no_storage() -> None:
    model, plan, _ = _pruned()
    before = copy.deepcopy(model.state_dict())
    small = slim(model, plan)
    with torch.no_grad():
        for tensor in [*small.parameters(), *small.buffers()]:
            tensor.zero_()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_a_plan_applied_to_a_fresh_model_admits_the_slimmed_weights() -> None:
    model = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval()
    example = torch.randn(1, 3, 32, 32)
    graph = trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    small = slim(model, plan)
    fresh = slim(
        build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval(),
        Plan.from_json(plan.to_json()),
    )
    fresh.load_state_dict(small.state_dict(), strict=True)
    assert torch.equal(fresh(example), small(example))


def test_attributes_tell_the_new_sizes() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(),
        nn.Linear(8 * 4, 6), nn.Linear(6, 2),
    ).eval()  # fmt: skip
    graph = trace(model, torch.randn(1, 3, 4, 4))
    keep = random_keep(graph, np.random.default_rng(1))
    small = slim(model, plan_of(graph, keep))
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            assert module.out_channels == module.weight.shape[0]
            assert module.in_channels == module.weight.shape[1] * module.groups
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_features == module.weight.numel()
        if isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == tuple(module.weight.shape)


def test_tied_parameters_stay_tied_and_frozen_ones_frozen() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 6)
            self.b = nn.Linear(3, 6)
            self.b.weight = self.a.weight
            self.a.bias.requires_grad_(False)
            self.out = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.tanh(self.a(x)) + self.b(x))

    model = Tied()
    graph = trace(model, torch.randn(1, 3))
    small = slim(model, plan_of(graph, np.array([True, False, True, False, False, True])))
    assert small.a.weight is small.b.weight
    assert small.a.weight.shape == (3, 3)
    assert not small.a.bias.requires_grad
    assert small.b.bias.requires_grad


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(kept={("9.weight", 0): (0,)}), "does not have"),
        (Plan(kept={("0.weight", 0): (0, 99)}), "index 99 of dimension 0"),
        (Plan(kept={("0.weight", 7): (0,)}), "dimension 7"),
    ],
)
def test_a_plan_for_another_model_is_refused(plan: Plan, message: str) -> None:
    with pytest.raises(InputError, match=message):
        slim(nn.Sequential(nn.Conv2d(3, 4, 1)), plan)
