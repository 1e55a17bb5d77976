"""Divergence: told early where there is one, never where there is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lcprune.data import AugmentedBatches, load_data
from lcprune.errors import InputError
from lcprune.models import build
from lcprune.training import EpochReport, TrainingConfig, finetune
from lcprune.training._divergence import FACTOR, STEPS, DivergenceWatch

CONFIG = TrainingConfig(learning_rate=0.25)


@given(losses=st.lists(st.floats(0, 100), min_size=1, max_size=3 * STEPS), guess=st.floats(0.5, 5))
def test_fires_exactly_where_the_loss_stays_high(losses: list[float], guess: float) -> None:
    limit = FACTOR * max(losses[0], guess)
    high = [loss > limit for loss in losses]
    ends = [i for i in range(len(losses)) if i + 1 >= STEPS and all(high[i + 1 - STEPS : i + 1])]
    watch = DivergenceWatch(CONFIG)
    for step, loss in enumerate(losses):
        if ends and step == ends[0]:
            with pytest.raises(InputError, match=rf"epoch 3, step {step + 1},.* 0\.25 at its"):
                watch.check(loss, guess, 2, step)
            return
        watch.check(loss, guess, 2, step)
        assert watch.climbing == high[step]


def test_fires_after_its_steps_and_a_break_starts_anew() -> None:
    watch = DivergenceWatch(CONFIG)
    watch.check(1.0, 2.0, 0, 0)
    for _ in range(3):
        for step in range(STEPS - 1):
            watch.check(6.1, 2.0, 0, step)
        watch.check(5.9, 2.0, 0, 0)
    for step in range(STEPS - 1):
        watch.check(6.1, 2.0, 0, step)
    with pytest.raises(InputError, match="diverges") as caught:
        watch.check(6.1, 2.0, 0, 7)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_is_no_number_fires_at_once(loss: float) -> None:
    with pytest.raises(InputError, match=r"epoch 1, step 2: lower the learning rate, 0\.25"):
        DivergenceWatch(CONFIG).check(loss, 2.0, 0, 1)


DATA = load_data("digits")


def trained(options: dict[str, Any], checkpoint: Path | None = None) -> list[EpochReport]:
    model = build("digits_resnet", classes=10, input_shape=DATA.input_shape)
    seen: list[EpochReport] = []
    finetune(
        model,
        AugmentedBatches(DATA.train, DATA, 128),
        teacher=model if "alpha" in options else None,
        config=TrainingConfig(**options),
        checkpoint=checkpoint,
        on_epoch=seen.append,
    )
    return seen


def test_a_huge_rate_is_told_while_losses_are_numbers(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.pt"
    with pytest.raises(InputError, match=r"the training diverges: .* epoch \d, .*, 30 at its peak"):
        trained({"epochs": 20, "learning_rate": 30.0, "schedule": "cosine"}, checkpoint)
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 3.0},
        {"learning_rate": 1.0, "mixup": 1.0, "label_smoothing": 0.2},
        {"learning_rate": 1.0, "schedule": "cosine"},
        {"learning_rate": 0.3, "alpha": 0.9, "temperature": 8.0},
    ],
)
def test_rates_that_still_train_are_let_alone(options: dict[str, Any]) -> None:
    seen = trained({"epochs": 5, **options})
    assert len(seen) == 5


class Bumpy:
    """Batches that are learnt at once, then in each later epoch ever worse ones."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):  # type: ignore[no-untyped-def]
        for step in range(self.steps):
            bad = self.epoch == 2 or (self.epoch == 1 and step == self.steps - 1)
            yield torch.full((4, 2), 50.0 if bad else 0.0), torch.tensor([0, 0, 0, 1])


def test_the_checkpoint_of_the_last_good_epoch_stays(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.pt"
    config = TrainingConfig(epochs=4, learning_rate=1e-9)
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
        model.bias.zero_()
    with pytest.raises(InputError, match=rf"epoch 3, step {STEPS - 1}, .*, 1e-09 at its peak"):
        finetune(model, Bumpy(STEPS + 5), config=config, checkpoint=checkpoint)
    assert len(torch.load(checkpoint, weights_only=True)["reports"]) == 1
