"""One step of gradient descent."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lcprune.training import TrainingConfig
from lcprune.training._mixup import Mixup
from lcprune.training._optimizer import sgd
from lcprune.training._processes import Processes
from lcprune.training._step import Step

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(6, 4, generator=GENERATOR)
TARGETS = torch.tensor([0, 1, 2, 0, 1, 2])


def guess(config: TrainingConfig, taught: Tensor | None = None) -> float:
    model = nn.Linear(4, 3)
    teach = None if taught is None else lambda _: taught
    step = Step(
        model, model, sgd(model, config), config, teach, Processes(0, 1, torch.device("cpu"))
    )
    step(INPUTS, TARGETS, Mixup(config.mixup, 0, 0), 0.1)
    first = step.guess
    step(INPUTS + 1, TARGETS.flip(0), Mixup(config.mixup, 0, 1), 0.1)
    assert step.guess == first
    return first


@given(smoothing=st.floats(0, 0.9), mixup=st.floats(0, 2))
def test_a_guess_costs_the_logarithm_of_the_classes(smoothing: float, mixup: float) -> None:
    config = TrainingConfig(label_smoothing=smoothing, mixup=mixup)
    assert guess(config) == pytest.approx(math.log(3), rel=1e-5)


@given(alpha=st.floats(0.1, 1), temperature=st.floats(0.5, 8), scale=st.floats(0, 20))
def test_with_a_teacher_a_guess_costs_what_the_teacher_knows(
    alpha: float, temperature: float, scale: float
) -> None:
    taught = scale * torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    p = (taught / temperature).softmax(1)
    known = float((torch.xlogy(p, p).sum(1) + math.log(3)).mean())
    expected = (1 - alpha) * math.log(3) + alpha * temperature**2 * known
    found = guess(TrainingConfig(alpha=alpha, temperature=temperature), taught)
    assert found == pytest.approx(max(math.log(3), expected), rel=1e-4)
