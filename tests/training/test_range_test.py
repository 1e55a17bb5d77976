"""The search for a learning rate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lcprune.errors import InputError
from lcprune.models import build, state_sha256
from lcprune.training import TrainingConfig, find_learning_rate
from lcprune.training._range_test import SHARE, suggest

RATES = [1e-4 * 10 ** (i / 20) for i in range(101)]


def curve(edge: float, start: float, end: float, noise: float, seed: int) -> list[float]:
    """Falls from ``start`` to ``end`` until the rate ``edge``, then climbs steeply."""
    generator = torch.Generator().manual_seed(seed)
    last = max(i for i, rate in enumerate(RATES) if rate <= edge)
    losses = []
    for i in range(len(RATES)):
        level = start + (end - start) * i / last if i <= last else end * 1.3 ** (i - last)
        losses.append(level + noise * float(torch.rand(1, generator=generator) - 0.5))
    return losses


@given(
    edge=st.floats(3e-3, 3),
    start=st.floats(0.5, 3),
    fall=st.floats(0, 0.9),
    noise=st.floats(0, 0.2),
    seed=st.integers(0, 99),
)
def test_the_suggestion_is_near_a_third_of_the_edge(
    edge: float, start: float, fall: float, noise: float, seed: int
) -> None:
    losses = curve(edge, start, start * (1 - fall), noise, seed)
    suggested = suggest(RATES, losses, blind_loss=2.3)
    assert edge * SHARE / 3 <= suggested <= edge * SHARE * 3


@given(spikes=st.sets(st.integers(5, 60), max_size=3), seed=st.integers(0, 99))
def test_single_spikes_do_not_count(spikes: set[int], seed: int) -> None:
    losses = curve(0.3, 2.3, 0.5, 0.02, seed)
    plain = suggest(RATES, losses, blind_loss=2.3)
    for i in spikes:
        losses[i] *= 10
    assert plain / 2 <= suggest(RATES, losses, blind_loss=2.3) <= plain * 2


@given(scale=st.floats(0.01, 100))
def test_the_scale_of_the_loss_does_not_count(scale: float) -> None:
    losses = curve(0.3, 2.3, 0.5, 0.02, 0)
    scaled = [scale * loss for loss in losses]
    assert suggest(RATES, scaled, blind_loss=scale * 2.3) == suggest(RATES, losses, blind_loss=2.3)


def test_a_curve_that_only_climbs() -> None:
    with pytest.raises(InputError, match="begin with a lower one"):
        suggest(RATES, [2.0**i for i in range(len(RATES))], blind_loss=2.3)
    with pytest.raises(InputError, match="begin with a lower one"):
        suggest([], [], blind_loss=2.3)


def network() -> nn.Module:
    return build("digits_resnet", classes=10, input_shape=(1, 8, 8), seed=1)


def loader(count: int = 7) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(16, 1, 8, 8, generator=generator),
            torch.randint(10, (16,), generator=generator),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("training", [False, True])
def test_everything_is_left_as_it_was_and_the_answer_is_fixed(training: bool) -> None:
    model, teacher = network().train(training), network()
    before, state = state_sha256(model), torch.get_rng_state()
    config = TrainingConfig(mixup=0.3, clip=1.0)
    results = []
    for _ in range(2):
        results.append(
            find_learning_rate(model, loader(), teacher=teacher, config=config, steps=20)
        )
        assert torch.equal(state, torch.get_rng_state())
        torch.rand(3)
        state = torch.get_rng_state()
    assert results[0] == results[1]
    assert state_sha256(model) == before
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rates_rise_by_a_factor_through_the_range() -> None:
    epochs = []

    class Stream:
        def set_epoch(self, epoch: int) -> None:
            epochs.append(epoch)

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return iter(loader(3))

    found = find_learning_rate(network(), Stream(), low=1e-5, high=1e-2, steps=10)
    assert found.rates[0] == pytest.approx(1e-5)
    assert found.rates[-1] == pytest.approx(1e-2)
    factors = [b / a for a, b in itertools.pairwise(found.rates)]
    assert factors == pytest.approx([factors[0]] * 9)
    assert len(found.losses) == 10
    assert found.suggested in [pytest.approx(SHARE * rate) for rate in found.rates]
    assert epochs == [0, 1, 2, 3]


def test_it_ends_where_the_loss_is_far_away() -> None:
    found = find_learning_rate(network(), loader(), low=1e-3, high=1e6, steps=60)
    assert len(found.rates) == len(found.losses) < 60
    assert found.suggested < 10


def test_ranges_and_loaders_that_hold_nothing() -> None:
    for low, high, steps in ((0.0, 1.0, 50), (1.0, 0.1, 50), (1e-4, float("inf"), 50), (0.1, 1, 3)):
        with pytest.raises(InputError, match=r"expected (0 < low < high|a finite number)"):
            find_learning_rate(network(), loader(), low=low, high=high, steps=steps)
    with pytest.raises(InputError, match="no batch"):
        find_learning_rate(network(), [])
