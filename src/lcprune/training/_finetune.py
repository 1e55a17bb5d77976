"""The loop that trains and fine-tunes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lcprune.training._average import averaged
from lcprune.training._batches import Batches
from lcprune.training._checkpoint import Progress, load_checkpoint, save_checkpoint
from lcprune.training._config import TrainingConfig
from lcprune.training._epochs import Epochs
from lcprune.training._generators import generator_states, restore_generators, seeded_generators
from lcprune.training._layout import lay_out
from lcprune.training._optimizer import sgd
from lcprune.training._processes import alike, join, on_main
from lcprune.training._report import EpochReport, TrainingResult
from lcprune.training._step import Step
from lcprune.training._teaching import teaching
from lcprune.training._validate import validate


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

    In a program started by ``accelerate launch`` or ``torchrun``, all processes call this with the
    same arguments, train each on its part of every batch, and end with the same weights: those
    that one process alone would end with, up to rounding and dropout's draws. Checkpoint and
    ``on_epoch`` are the main process's.

    ``InputError`` where the training diverges (the checkpoint of the last good epoch stays) or
    there is nothing to train; ``RunError`` where the checkpoint is not one of this training.
    """
    config = config or TrainingConfig()
    processes = join(device)
    place = processes.device
    model.to(place)
    channels_last = lay_out(model, config)
    with alike():
        optimizer = sgd(model, config)
    average = None if config.ema is None else averaged(model, config.ema)
    ending = model if average is None else average.module
    reports: tuple[EpochReport, ...] = ()
    with seeded_generators(config.seed, place, processes.rank), ExitStack() as stack:
        if resume and checkpoint is not None and checkpoint.exists():
            with alike():
                progress = load_checkpoint(
                    checkpoint, model, optimizer, average, config, processes.count
                )
            reports = progress.reports
            restore_generators(progress.generators[processes.rank], place)
        called = stack.enter_context(processes.training(model))
        teach = teaching(teacher, config, place)
        step = Step(model, called, optimizer, config, teach, processes)
        epochs = Epochs(model, step, config, average)
        for epoch in range(len(reports), config.epochs):
            start = time.perf_counter()
            loss = epochs.run(train_loader, epoch)
            top1 = None if val_loader is None else validate(ending, val_loader, processes)
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
            states = tuple(processes.gather(generator_states(place)))
            last = epoch + 1 == config.epochs
            if checkpoint is not None and (last or not epochs.watch.climbing):
                state = Progress(reports, states)
                on_main(
                    partial(save_checkpoint, checkpoint, model, optimizer, average, config, state)
                )
            if on_epoch is not None:
                on_main(partial(on_epoch, report))
    if average is not None and reports:
        model.load_state_dict(average.module.state_dict())
    if channels_last:
        model.to(memory_format=torch.contiguous_format)
    model.eval()
    return TrainingResult(reports)
