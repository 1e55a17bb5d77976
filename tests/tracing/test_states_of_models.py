"""Models in odd states are traced all the same, and left as they were."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcprune.slimming import slim, verify
from lcprune.tracing import trace
from oracle import check, plan_of, random_keep, randomise

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(6, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def test_a_model_in_training_with_frozen_parameters_works_and_is_left_as_it_was() -> None:
    model = randomise(network(), 0)
    plain = trace(model, IMAGE)
    model.train()
    model[1].eval()
    model[0].requires_grad_(False)
    model(IMAGE.repeat(2, 1, 1, 1)).sum().backward()
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = trace(model, IMAGE)
    assert graph.prunable == plain.prunable == 10
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    small = slim(model, plan)
    assert verify(model, small, plan, IMAGE) <= 1e-9
    assert [module.training for module in model.modules()] == modes
    assert [module.training for module in small.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert [parameter.requires_grad for parameter in small.parameters()] == wanted
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (grad is None) == (parameter.grad is None)
        assert grad is None or torch.equal(grad, parameter.grad)


class KeepsFeatures(nn.Module):
    """Puts tensors by that belong to a graph of gradients, in containers too."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 1)
        self.b = nn.Conv2d(6, 2, 1)
        self.seen: dict[str, list[Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.a(x)
        self.seen["features"] = [self.last * 2]
        return self.b(self.last)


def test_what_a_model_keeps_of_an_earlier_run_does_not_matter() -> None:
    model = KeepsFeatures()
    model(IMAGE).sum().backward()
    last = model.last
    assert trace(model, IMAGE).prunable == 6
    assert model.last is last
    assert last.requires_grad


def test_a_model_that_keeps_tensors_of_an_earlier_run_can_be_slimmed() -> None:
    model = randomise(KeepsFeatures(), 0)
    model(IMAGE).sum().backward()
    assert check(model, IMAGE, 0).error <= 1e-9


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_a_hook_computes_are_followed() -> None:
    normed = torch.nn.utils.weight_norm(nn.Conv2d(3, 6, 1))
    model = nn.Sequential(normed, nn.ReLU(), nn.Conv2d(6, 2, 1))
    graph = trace(model, IMAGE)
    assert graph.prunable == 6
    (family,) = graph.families
    assert {("0.weight_v", 0), ("0.weight_g", 0), ("2.weight", 1)} <= set(family.dimensions)


def test_tracing_works_in_inference_mode_too() -> None:
    model = randomise(network(), 0)
    with torch.inference_mode():
        inside = randomise(network(), 0)
        assert trace(model, IMAGE + 0).prunable == 10
        graph = trace(inside, IMAGE + 0)
        plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
        assert verify(inside, slim(inside, plan), plan, IMAGE + 0) <= 1e-9
    assert graph.prunable == 10
    assert trace(inside, IMAGE).prunable == 10


def test_warnings_of_the_model_are_the_only_ones() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(network(), IMAGE)
