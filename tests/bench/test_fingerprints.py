"""What a foreign pruner kept is read from the tensors that it left."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from fingerprints import UnreadableError, mark, restore
from lcprune.ranking import Plan
from lcprune.slimming import slim
from oracle import randomise


def network() -> nn.Module:
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 1), nn.Flatten(), nn.Linear(20, 4)
    )
    return randomise(layers, seed=1)


@st.composite
def kept(draw: st.DrawFn) -> dict[tuple[str, int], tuple[int, ...]]:
    """Indices of some dimensions, each on its own: a pruner may tear what belongs together."""
    found = {}
    for name, tensor in network().state_dict().items():
        for dim, size in enumerate(tensor.shape):
            if size > 1 and draw(st.booleans()):
                indices = draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size - 1))
                found[name, dim] = tuple(sorted(indices))
    return found


@given(kept=kept())
def test_indices_and_values_come_back(kept: dict[tuple[str, int], tuple[int, ...]]) -> None:
    plan = Plan(kept=kept)
    model = network()
    expected = slim(model, plan).double()
    values = mark(model)
    pruned = slim(model, plan)
    assert restore(pruned, values) == kept
    for name, tensor in expected.state_dict().items():
        assert torch.equal(pruned.state_dict()[name], tensor)


def test_tied_tensors_are_read_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    whole = copy.deepcopy(model).double()
    values = mark(model)
    assert restore(model, values) == {}
    assert torch.equal(model[1].weight, whole[0].weight)


def test_other_indices_in_every_row_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    values = mark(model)
    rows = [model[0].weight[0, :2], model[0].weight[1, :2], model[0].weight[2, 2:]]
    model[0].weight = nn.Parameter(torch.stack(rows))
    with pytest.raises(UnreadableError, match=r"0\.weight is no product"):
        restore(model, values)


@pytest.mark.parametrize("value", [-1.0, 0.5, 12.0, float("nan")])
def test_values_that_were_not_there_are_refused(value: float) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    values = mark(model)
    model[0].weight.data[1, 1] = value
    with pytest.raises(UnreadableError, match=r"0\.weight holds values"):
        restore(model, values)


def test_new_and_missing_tensors_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    values = mark(model)
    model.register_buffer("shift", torch.zeros(3))
    with pytest.raises(UnreadableError, match="shift is new"):
        restore(model, values)
    with pytest.raises(UnreadableError, match=r"0\.weight is gone"):
        restore(nn.Sequential(nn.ReLU()), values)
