"""What is done beside a training: averaging, the watch over its loss, and hooks of one's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import lcprune
from docs.pages import ROOT, code_blocks
from lcprune.data import AugmentedBatches, load_data
from lcprune.errors import InputError
from lcprune.models import build
from lcprune.training import EpochReport, TrainingConfig, finetune
from lcprune.training._hooks import FACTOR, STEPS, DivergenceWatch, WeightAverage, decay_at
from order import few


@given(decay=st.floats(0, 0.9999), updates=st.integers(0, 10**6))
def test_the_decay_rises_to_its_value(decay: float, updates: int) -> None:
    assert decay_at(decay, updates) <= decay_at(decay, updates + 1) <= decay
    assert decay_at(decay, updates) <= (1 + updates) / (10 + updates)
    assert decay_at(decay, 10**9) == decay


@given(decay=st.floats(0, 0.999), steps=st.integers(1, 12))
def test_it_is_the_recurrence(decay: float, steps: int) -> None:
    model = nn.BatchNorm1d(3, dtype=torch.float64)
    average = WeightAverage(model, decay)
    expected = {}
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        with torch.no_grad():
            for tensor in (model.weight, model.running_mean, model.running_var):
                assert tensor is not None
                tensor.copy_(torch.rand(3, generator=generator, dtype=torch.float64))
        assert model.num_batches_tracked is not None
        model.num_batches_tracked += 1
        average.after_step(model, None, 0)
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
    average = WeightAverage(model, 0.9)
    frozen = model[0].bias.clone()
    for _ in range(3):
        with torch.no_grad():
            model[0].weight.add_(1)
        average.after_step(model, None, 0)
    assert average.module[1].weight is average.module[0].weight
    assert torch.equal(average.module[0].bias, frozen)
    assert not torch.equal(average.module[0].weight, model[0].weight)


CONFIG = TrainingConfig(learning_rate=0.25)


@example(losses=[1.0] * 20 + [90.0] * (STEPS + 9), blind=2.0, bunch=16)
@given(
    losses=st.lists(st.floats(0, 100), min_size=1, max_size=3 * STEPS),
    blind=st.floats(0.5, 5),
    bunch=st.integers(1, 60),
)
def test_fires_exactly_where_the_loss_stays_high(
    losses: list[float], blind: float, bunch: int
) -> None:
    """However many losses are told at once."""
    limit = FACTOR * max(losses[0], blind)
    high = [loss > limit for loss in losses]
    ends = [i for i in range(len(losses)) if i + 1 >= STEPS and all(high[i + 1 - STEPS : i + 1])]
    watch = DivergenceWatch(CONFIG)
    for first in range(0, len(losses), bunch):
        read = list(enumerate(losses))[first : first + bunch]
        if ends and first <= ends[0] < first + bunch:
            with pytest.raises(InputError, match=rf"epoch 3, step {ends[0] + 1},.* 0\.25 at its"):
                watch.check(read, blind, 2)
            return
        watch.check(read, blind, 2)
        assert watch.climbing == high[read[-1][0]]


def test_fires_after_its_steps_and_a_break_starts_anew() -> None:
    watch = DivergenceWatch(CONFIG)
    watch.check([(0, 1.0)], 2.0, 0)
    for _ in range(3):
        watch.check(enumerate([6.1] * (STEPS - 1) + [5.9]), 2.0, 0)
    watch.check(enumerate([6.1] * (STEPS - 1)), 2.0, 0)
    resumed = DivergenceWatch(CONFIG)
    resumed.load_state_dict(watch.state_dict())
    for own, blind in ((watch, 2.0), (resumed, 9.0)):  # the limit is that of the first step
        with pytest.raises(InputError, match="diverges") as caught:
            own.check([(7, 6.1)], blind, 0)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_is_no_number_fires_at_once(loss: float) -> None:
    with pytest.raises(InputError, match=r"epoch 1, step 32: lower the learning rate, 0\.25"):
        DivergenceWatch(CONFIG).check([(30, 1.0), (31, loss)], 2.0, 0)


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
    few(
        [
            {"learning_rate": 3.0},
            {"learning_rate": 1.0, "mixup": 1.0, "label_smoothing": 0.2},
            {"learning_rate": 1.0, "schedule": "cosine"},
            {"learning_rate": 0.3, "alpha": 0.9, "temperature": 8.0},
        ],
        default=1,
    ),
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


def test_the_example_of_the_page_runs() -> None:
    [block] = [b for b in code_blocks(ROOT / "docs" / "training.md") if "TrainingHook" in b]
    scales = []
    for strength in ("0", "1"):
        model = build("digits_resnet", classes=10, input_shape=DATA.input_shape)
        names: dict[str, Any] = {
            "lp": lcprune,
            "small": model,
            "train_loader": AugmentedBatches(DATA.train, DATA, 256),
            "config": TrainingConfig(epochs=1, learning_rate=1e-2),
        }
        exec(block.replace("1e-4", strength), names)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        scales.append(sum(float(norm.weight.detach().abs().sum()) for norm in norms))
    assert scales[1] < 0.99 * scales[0]
