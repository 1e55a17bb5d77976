"""Distillation."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from lcprune.training import distillation_loss
from lcprune.training._loss import labels_loss
from lcprune.training._mixup import Labels


@given(seed=st.integers(0, 99), temperature=st.floats(0.5, 8), alpha=st.floats(0, 1))
def test_equals_its_formula(seed: int, temperature: float, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs, taught = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(4, (5,), generator=generator)
    p = torch.exp(taught / temperature) / torch.exp(taught / temperature).sum(1, keepdim=True)
    q = torch.exp(outputs / temperature) / torch.exp(outputs / temperature).sum(1, keepdim=True)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    hard = -torch.log(torch.softmax(outputs, 1)[torch.arange(5), targets]).mean()
    expected = (1 - alpha) * hard + alpha * temperature**2 * divergence
    loss = distillation_loss(outputs, targets, taught, temperature, alpha)
    torch.testing.assert_close(loss, expected)


def test_a_perfect_student_has_the_labels_loss_alone() -> None:
    outputs = torch.randn(5, 4)
    targets = torch.tensor([0, 1, 2, 3, 0])
    loss = distillation_loss(outputs, targets, outputs, 3.0, 0.4)
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
    loss = labels_loss(outputs, Labels(targets, others, share), smoothing)
    torch.testing.assert_close(loss, expected)
