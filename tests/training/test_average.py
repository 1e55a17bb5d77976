"""The moving average of weights."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lcprune.training._average import averaged, decay_at


@given(decay=st.floats(0, 0.9999), updates=st.integers(0, 10**6))
def test_the_decay_rises_to_its_value(decay: float, updates: int) -> None:
    assert decay_at(decay, updates) <= decay_at(decay, updates + 1) <= decay
    assert decay_at(decay, updates) <= (1 + updates) / (10 + updates)
    assert decay_at(decay, 10**9) == decay


@given(decay=st.floats(0, 0.999), steps=st.integers(1, 12))
def test_it_is_the_recurrence(decay: float, steps: int) -> None:
    model = nn.BatchNorm1d(3, dtype=torch.float64)
    average = averaged(model, decay)
    expected = {}
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        with torch.no_grad():
            for tensor in (model.weight, model.running_mean, model.running_var):
                assert tensor is not None
                tensor.copy_(torch.rand(3, generator=generator, dtype=torch.float64))
        assert model.num_batches_tracked is not None
        model.num_batches_tracked += 1
        average.update_parameters(model)
        for name, value in model.state_dict().items():
            if step == 0 or not value.is_floating_point():
                expected[name] = value.clone()
            else:
                d = min(decay, (1 + step) / (10 + step))
                expected[name] = d * expected[name] + (1 - d) * value
    torch.testing.assert_close(dict(average.module.state_dict()), expected)


def test_tied_and_frozen_weights_stay_so() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    average = averaged(model, 0.9)
    frozen = model[0].bias.clone()
    for _ in range(3):
        with torch.no_grad():
            model[0].weight.add_(1)
        average.update_parameters(model)
    assert average.module[1].weight is average.module[0].weight
    assert torch.equal(average.module[0].bias, frozen)
    assert not torch.equal(average.module[0].weight, model[0].weight)
