"""The loop that trains and fine-tunes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lcprune.errors import InputError
from lcprune.training._average import averaged
from lcprune.training._batches import Batches, epoch_of
from lcprune.training._checkpoint import Progress, load_checkpoint, save_checkpoint
from lcprune.training._config import TrainingConfig
from lcprune.training._divergence import DivergenceWatch
from lcprune.training._evaluate import accuracy
from lcprune.training._generators import generator_states, restore_generators, seeded_generators
from lcprune.training._layout import lay_out
from lcprune.training._mixup import Mixup
from lcprune.training._optimizer import sgd
from lcprune.training._report import EpochReport, TrainingResult
from lcprune.training._step import Step
from lcprune.training._teaching import teaching


def finetune(
    model: nn.Module,
    train_loader: Batches,
    val_loader: Batches | None = None,
    *,
    teacher: nn.Module | None = None,
    config: TrainingConfig | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochReport], None] | None = None,
    device: str = "cpu",
) -> TrainingResult:
    """Train ``model`` in place; it ends on ``device``, in eval mode, with the last epoch's weights.

    With ``config.ema`` those are the averaged ones, and they are what is validated.

    The loaders can be iterated again and again and yield (inputs, targets): inputs as the model
    takes them, targets int64 (N,). One that has ``set_epoch(int)`` is told the epoch, from 0. A
    copy of ``teacher`` is distilled from. After every epoch the state is written to ``checkpoint``
    and the report given to ``on_epoch``; ``resume`` continues from that file, where there is one,
    bit for bit as if there had been no break. Dropout and the like draw from PyTorch's global
    generators, which are seeded for the training and left as they were.

    ``InputError`` where the training diverges (the checkpoint of the last good epoch stays) or
    there is nothing to train; ``RunError`` where the checkpoint is not one of this training.
    """
    config = config or TrainingConfig()
    place = torch.device(device)
    model.to(place)
    channels_last = lay_out(model, config)
    optimizer = sgd(model, config)
    average = None if config.ema is None else averaged(model, config.ema)
    ending = model if average is None else average.module
    reports: tuple[EpochReport, ...] = ()
    with seeded_generators(config.seed, place):
        if resume and checkpoint is not None and checkpoint.exists():
            progress = load_checkpoint(checkpoint, model, optimizer, average, config)
            reports = progress.reports
            restore_generators(progress.generators, place)
        step = Step(model, optimizer, config, teaching(teacher, config, place), place)
        epochs = _Epochs(model, step, config, average)
        for epoch in range(len(reports), config.epochs):
            start = time.perf_counter()
            loss = epochs.run(train_loader, epoch)
            top1 = None if val_loader is None else accuracy(ending, val_loader, place)
            seconds = time.perf_counter() - start
            spent = sum(report.seconds for report in reports) + seconds
            report = EpochReport(
                epoch=epoch + 1,
                epochs=config.epochs,
                loss=loss,
                learning_rate=float(optimizer.param_groups[0]["lr"]),
                seconds=seconds,
                seconds_left=spent / (epoch + 1) * (config.epochs - epoch - 1),
                val_accuracy=top1,
            )
            reports = (*reports, report)
            last = epoch + 1 == config.epochs
            if checkpoint is not None and (last or not epochs.watch.climbing):
                state = Progress(reports, generator_states(place))
                save_checkpoint(checkpoint, model, optimizer, average, config, state)
            if on_epoch is not None:
                on_epoch(report)
    if average is not None and reports:
        model.load_state_dict(average.module.state_dict())
    if channels_last:
        model.to(memory_format=torch.contiguous_format)
    model.eval()
    return TrainingResult(reports)


class _Epochs:
    """Runs epochs of one training."""

    def __init__(
        self,
        model: nn.Module,
        step: Step,
        config: TrainingConfig,
        average: AveragedModel | None,
    ) -> None:
        self._model = model
        self._step = step
        self._config = config
        self._average = average
        self.watch = DivergenceWatch(config)

    def run(self, loader: Batches, epoch: int) -> float:
        """Train for an epoch; the mean loss over its samples."""
        steps = len(loader) if isinstance(loader, Sized) else None
        mix = Mixup(self._config.mixup, self._config.seed, epoch)
        self._model.train()
        total, count = 0.0, 0
        for step, (inputs, targets) in enumerate(epoch_of(loader, epoch)):
            # A loader of unknown length holds the rate for an epoch: that of its middle.
            within = 0.5 if steps is None else step / steps
            rate = self._config.learning_rate_at((epoch + within) / self._config.epochs)
            loss = self._step(inputs, targets, mix, rate)
            self.watch.check(loss, self._step.guess, epoch, step)
            if self._average is not None:
                self._average.update_parameters(self._model)
            total += loss * len(targets)
            count += len(targets)
        if count == 0:
            raise InputError("the training data hold no batch")
        return total / count
