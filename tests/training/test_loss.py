"""What a step makes smaller: the loss that training runs, and mixed samples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from lcprune.errors import InputError
from lcprune.training import Labels, TrainingConfig, training_loss
from lcprune.training._loss import Mixup


@given(seed=st.integers(0, 99), temperature=st.floats(0.5, 8), alpha=st.floats(0, 1))
def test_equals_its_formula(seed: int, temperature: float, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs, logits = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(4, (5,), generator=generator)
    p = torch.exp(logits / temperature) / torch.exp(logits / temperature).sum(1, keepdim=True)
    q = torch.exp(outputs / temperature) / torch.exp(outputs / temperature).sum(1, keepdim=True)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    hard = -torch.log(torch.softmax(outputs, 1)[torch.arange(5), targets]).mean()
    expected = (1 - alpha) * hard + alpha * temperature**2 * divergence
    config = TrainingConfig(alpha=alpha, temperature=temperature)
    loss = training_loss(outputs, Labels(targets), logits, config)
    torch.testing.assert_close(loss, expected)


def test_a_perfect_student_has_the_labels_loss_alone() -> None:
    outputs = torch.randn(5, 4)
    targets = torch.tensor([0, 1, 2, 3, 0])
    config = TrainingConfig(alpha=0.4, temperature=3.0)
    loss = training_loss(outputs, Labels(targets), outputs, config)
    torch.testing.assert_close(loss, 0.6 * functional.cross_entropy(outputs, targets))


@given(seed=st.integers(0, 99), smoothing=st.floats(0, 0.9), share=st.floats(0, 1))
def test_smoothed_and_mixed_labels_are_distributions(
    seed: int, smoothing: float, share: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(5, 4, generator=generator, dtype=torch.float64) * 3
    targets, others = torch.randint(4, (2, 5), generator=generator)
    rows = torch.eye(4, dtype=torch.float64)
    mixed = share * rows[targets] + (1 - share) * rows[others]
    wanted = (1 - smoothing) * mixed + smoothing / 4
    expected = -(wanted * outputs.log_softmax(1)).sum(1).mean()
    config = TrainingConfig(label_smoothing=smoothing)
    loss = training_loss(outputs, Labels(targets, others, share), None, config)
    torch.testing.assert_close(loss, expected)


INPUTS = torch.arange(24.0, dtype=torch.float64).view(6, 2, 2)
TARGETS = torch.arange(6)  # a sample's target says where it stood


@given(concentration=st.floats(0.05, 5), seed=st.integers(0, 2**31), epoch=st.integers(0, 500))
def test_a_sample_lies_between_those_that_its_labels_name(
    concentration: float, seed: int, epoch: int
) -> None:
    mix = Mixup(concentration, seed, epoch)
    for _ in range(3):
        mixed, labels = mix(INPUTS, TARGETS)
        assert labels.others is not None
        assert torch.equal(labels.targets, TARGETS)
        assert 0 <= labels.share <= 1
        assert sorted(labels.others.tolist()) == TARGETS.tolist()
        expected = labels.share * INPUTS + (1 - labels.share) * INPUTS[labels.others]
        torch.testing.assert_close(mixed, expected)


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    def draws(seed: int, epoch: int) -> list[float]:
        mix = Mixup(1.0, seed, epoch)
        return [mix(INPUTS, TARGETS)[1].share for _ in range(4)]

    before = torch.get_rng_state()
    assert draws(1, 2) == draws(1, 2)
    assert torch.equal(before, torch.get_rng_state())
    different = [draws(1, 2), draws(2, 1), draws(1, 3), draws(0, 2)]
    assert len({tuple(row) for row in different}) == 4
    assert len(set(draws(1, 2))) == 4


@pytest.mark.parametrize("concentration", [0.2, 1.0, 3.0])
def test_shares_have_the_moments_of_their_distribution(concentration: float) -> None:
    mix = Mixup(concentration, 0, 0)
    shares = torch.tensor([mix(INPUTS, TARGETS)[1].share for _ in range(2000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(0.25 / (2 * concentration + 1), rel=0.1)


@given(concentration=st.sampled_from([0.0, 0.5]), cut=st.integers(0, 6))
def test_parts_of_a_batch_are_mixed_as_the_whole(concentration: float, cut: int) -> None:
    whole, labels = Mixup(concentration, 1, 2)(INPUTS, TARGETS)
    parts = [
        Mixup(concentration, 1, 2)(INPUTS, TARGETS, part) for part in (slice(0, cut), slice(cut, 6))
    ]
    assert torch.equal(torch.cat([inputs for inputs, _ in parts]), whole)
    for name in ("targets", "others"):
        expected = getattr(labels, name)
        if expected is not None:
            assert torch.equal(torch.cat([getattr(own, name) for _, own in parts]), expected)


def test_without_a_concentration_nothing_is_mixed() -> None:
    inputs, labels = Mixup(0.0, 0, 0)(INPUTS, TARGETS)
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(labels.targets, TARGETS)
    assert labels.others is None


def test_inputs_that_have_no_mean_are_refused() -> None:
    with pytest.raises(InputError, match=r"mixup .* got torch\.int64"):
        Mixup(0.2, 0, 0)(TARGETS, TARGETS)
