"""The public oracle sees what is wrong, and says so when it can't see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lcprune.errors import VerificationError
from lcprune.graph import Dimension
from lcprune.testing import check, counted, randomise
from lcprune.tracing import trace
from networks import random_network

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3)
    )


def test_a_right_network_passes() -> None:
    checked = check(randomise(network(), 0), EXAMPLE)
    assert checked.error <= 1e-9
    assert checked.effect > 1e-3
    assert checked.graph.prunable == 6


def test_a_graph_with_two_channels_swapped_is_found() -> None:
    model = randomise(network(), 0)
    graph = trace(model, EXAMPLE)
    turned = tuple(
        Dimension(d.tensor, d.dim, np.roll(d.channels, 1)) if d.key == ("3.weight", 1) else d
        for d in graph.dimensions
    )
    with pytest.raises(VerificationError, match="differs"):
        check(model, EXAMPLE, graph=replace(graph, dimensions=turned))


def test_a_check_that_sees_nothing_is_none() -> None:
    model = randomise(network(), 0)
    with torch.no_grad():
        model[3].weight.zero_()
    with pytest.raises(VerificationError, match="blind"):
        check(model, EXAMPLE)


def test_a_network_without_prunable_channels_is_no_check() -> None:
    with pytest.raises(VerificationError, match="nothing to check"):
        check(nn.Sequential(nn.Conv2d(3, 4, 3)), EXAMPLE)


def test_random_values_come_from_the_seed_and_none_is_zero() -> None:
    one, other = (randomise(random_network(5)[0], seed).state_dict() for seed in (1, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    third = randomise(random_network(5)[0], 2).state_dict()
    assert not all(torch.equal(one[name], third[name]) for name in one)
    assert all(bool((t != 0).all()) for t in one.values() if t.is_floating_point())


def test_the_count_is_that_of_a_convolution_by_hand() -> None:
    costs = counted(nn.Conv2d(3, 4, 3, padding=1), EXAMPLE)
    assert costs == {"macs": 64 * 9 * 3 * 4, "params": 4 * 3 * 9 + 4}
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    values = torch.randn(1, 5, 8)
    # Three projections and one out, queries times keys, times values.
    expected = 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8
    assert counted(attention, (values, values, values))["macs"] == expected


def test_counting_changes_neither_the_network_nor_its_input() -> None:
    model, example = nn.Sequential(nn.ReLU(inplace=True), network()), EXAMPLE.clone()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert counted(model, example)["params"] == sum(p.numel() for p in model.parameters())
    assert model.training
    assert torch.equal(example, EXAMPLE)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
