"""The closed form against PyTorch's own counter on networks that are really slimmed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lcprune.cost import CostModel
from lcprune.models import build
from lcprune.slimming import slim
from lcprune.testing import counted
from lcprune.tracing import trace
from networks import random_network
from oracle import plan_of, random_keep

torchvision = pytest.importorskip("torchvision")


def agree(model: nn.Module, example: torch.Tensor, seed: int) -> None:
    graph = trace(model, example)
    cost = CostModel(graph)
    assert cost.evaluate() == counted(model, example)
    keep = random_keep(graph, np.random.default_rng(seed))
    assert cost.evaluate(keep) == counted(slim(model, plan_of(graph, keep)), example)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_random_networks(seed: int) -> None:
    model, example = random_network(seed)
    agree(model, example, seed)


@pytest.mark.parametrize(
    "name",
    ["resnext50_32x4d", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x1_0", "convnext_tiny",
     "regnet_y_400mf", "squeezenet1_1", "alexnet", "efficientnet_b0"],
)  # fmt: skip
def test_known_networks(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    side = 96 if name == "alexnet" else 64
    agree(model, torch.randn(1, 3, side, side), 0)


@pytest.mark.parametrize("name", ["cifar_resnet56", "cifar_mobilenet_v2"])
def test_own_networks(name: str) -> None:
    agree(build(name, classes=10, input_shape=(3, 32, 32)).eval(), torch.randn(1, 3, 32, 32), 0)


def test_macs_are_those_of_one_sample() -> None:
    model = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval()
    one, four = (trace(model, torch.randn(n, 3, 32, 32)) for n in (1, 4))
    assert CostModel(one).evaluate() == CostModel(four).evaluate()


def test_a_resnet56_has_the_macs_that_the_field_states() -> None:
    model = build("cifar_resnet56", classes=10, input_shape=(3, 32, 32)).eval()
    macs = CostModel(trace(model, torch.randn(1, 3, 32, 32))).evaluate()["macs"]
    assert round(macs / 1e6, 2) == 125.49
