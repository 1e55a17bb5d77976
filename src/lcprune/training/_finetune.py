"""The loop that trains and fine-tunes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sized
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune.errors import InputError
from lcprune.training._checkpoint import Progress, load_checkpoint, save_checkpoint
from lcprune.training._config import TrainingConfig
from lcprune.training._evaluate import accuracy
from lcprune.training._generators import generator_states, restore_generators, seeded_generators
from lcprune.training._loss import distillation_loss
from lcprune.training._report import EpochReport, TrainingResult

Batches = Iterable[tuple[Tensor, Tensor]]


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

    The loaders can be iterated again and again and yield (inputs, targets): inputs as the model
    takes them, targets int64 (N,). One that has ``set_epoch(int)`` is told the epoch, from 0. A
    copy of ``teacher`` is distilled from. After every epoch the state is written to ``checkpoint``
    and the report given to ``on_epoch``; ``resume`` continues from that file, where there is one,
    bit for bit as if there had been no break. Dropout and the like draw from PyTorch's global
    generators, which are seeded for the training and left as they were.

    ``InputError`` where the loss stops being a number or there is nothing to train; ``RunError``
    where the checkpoint is not one of this training.
    """
    config = config or TrainingConfig()
    place = torch.device(device)
    model.to(place)
    # The layout is one of images: a model with weights over volumes has another.
    channels_last = config.channels_last and all(p.dim() < 5 for p in model.parameters())
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, config)
    reports: tuple[EpochReport, ...] = ()
    with seeded_generators(config.seed, place):
        if resume and checkpoint is not None and checkpoint.exists():
            progress = load_checkpoint(checkpoint, model, optimizer, config)
            reports = progress.reports
            restore_generators(progress.generators, place)
        epoch_runner = _Epochs(model, optimizer, config, _teaching(teacher, config, place), place)
        for epoch in range(len(reports), config.epochs):
            start = time.perf_counter()
            loss = epoch_runner.run(train_loader, epoch)
            top1 = None if val_loader is None else accuracy(model, val_loader, place)
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
            if checkpoint is not None:
                state = Progress(reports, generator_states(place))
                save_checkpoint(checkpoint, model, optimizer, config, state)
            if on_epoch is not None:
                on_epoch(report)
    if channels_last:
        model.to(memory_format=torch.contiguous_format)
    model.eval()
    return TrainingResult(reports)


class _Epochs:
    """Runs epochs of one training."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        teaching: Callable[[Tensor], Tensor] | None,
        device: torch.device,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._config = config
        self._teaching = teaching
        self._device = device

    def run(self, loader: Batches, epoch: int) -> float:
        """Train for an epoch; the mean loss over its samples."""
        set_epoch = getattr(loader, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
        steps = len(loader) if isinstance(loader, Sized) else None
        self._model.train()
        total, count = 0.0, 0
        for step, (inputs, targets) in enumerate(loader):
            # A loader of unknown length holds the rate for an epoch: that of its middle.
            within = 0.5 if steps is None else step / steps
            rate = self._config.learning_rate_at((epoch + within) / self._config.epochs)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            loss = self._step(inputs.to(self._device), targets.to(self._device))
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss is {loss} in epoch {epoch + 1}, step {step + 1}: lower the learning "
                    f"rate, {self._config.learning_rate:g} at its peak"
                )
            total += loss * len(targets)
            count += len(targets)
        if count == 0:
            raise InputError("the training data hold no batch")
        return total / count

    def _step(self, inputs: Tensor, targets: Tensor) -> float:
        config = self._config
        taught = None if self._teaching is None else self._teaching(inputs)
        if config.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        half = config.dtype == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            outputs = self._model(inputs)
        outputs = outputs.float()
        if taught is None:
            loss = functional.cross_entropy(outputs, targets)
        else:
            loss = distillation_loss(outputs, targets, taught, config.temperature, config.alpha)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), config.clip)
        self._optimizer.step()
        return float(loss.detach())


def _optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("the model has no parameter that can be trained")
    decayed = [parameter for parameter in trained if parameter.dim() > 1]
    rest = [parameter for parameter in trained if parameter.dim() <= 1]
    groups = [(decayed, config.weight_decay), (rest, 0.0)]
    return torch.optim.SGD(
        [{"params": members, "weight_decay": decay} for members, decay in groups if members],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
    )


def _teaching(
    teacher: nn.Module | None, config: TrainingConfig, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    if teacher is None or config.alpha == 0:
        return None
    precision = config.teacher_precision
    copied = precision.apply(copy.deepcopy(teacher).to(device)).eval()

    def teach(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = copied(precision.cast(inputs))
        return outputs.float()

    return teach
