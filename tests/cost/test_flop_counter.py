"""The closed form against PyTorch's own counter on networks that are really slimmed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from known import NETWORKS, traced
from lcprune.cost import CostModel
from lcprune.graph import ChannelGraph
from lcprune.models import build
from lcprune.slimming import slim
from lcprune.testing import counted
from lcprune.tracing import trace
from networks import random_network
from oracle import plan_of, random_keep


def agree(model: nn.Module, example: torch.Tensor, graph: ChannelGraph, seed: int) -> None:
    cost = CostModel(graph)
    assert cost.evaluate() == counted(model, example)
    keep = random_keep(graph, np.random.default_rng(seed))
    assert cost.evaluate(keep) == counted(slim(model, plan_of(graph, keep)), example)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_random_networks(seed: int) -> None:
    agree(*random(seed), seed)


@pytest.mark.thorough
@settings(max_examples=100)
@given(seed=st.integers(0, 10**6))
def test_many_random_networks(seed: int) -> None:
    agree(*random(seed), seed)


def random(seed: int) -> tuple[nn.Module, torch.Tensor, ChannelGraph]:
    model, example = random_network(seed)
    return model, example, trace(model, example)


@pytest.mark.parametrize("name", NETWORKS)
def test_known_networks(name: str) -> None:
    agree(*traced(name), 0)


def test_macs_are_those_of_one_sample() -> None:
    model = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval()
    one, four = (trace(model, torch.randn(n, 3, 32, 32)) for n in (1, 4))
    assert CostModel(one).evaluate() == CostModel(four).evaluate()


def test_a_resnet56_has_the_macs_that_the_field_states() -> None:
    model = build("cifar_resnet56", classes=10, input_shape=(3, 32, 32)).eval()
    macs = CostModel(trace(model, torch.randn(1, 3, 32, 32))).evaluate()["macs"]
    assert round(macs / 1e6, 2) == 125.49
