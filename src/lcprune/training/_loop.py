"""The loop that trains and fine-tunes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lcprune._checks import function, instance, integer, path
from lcprune.errors import InputError
from lcprune.fitness import seeded
from lcprune.training._checkpoint import (
    Progress,
    generator_states,
    load_checkpoint,
    restore_generators,
    save_checkpoint,
)
from lcprune.training._config import TrainingConfig
from lcprune.training._distributed import Ranks, Tell, device_named, device_of, run_ranks
from lcprune.training._evaluate import count_right
from lcprune.training._hooks import DivergenceWatch, TrainingHook, WeightAverage
from lcprune.training._loss import Mixup
from lcprune.training._report import EpochClock, EpochReport, StepProgress, TrainingResult
from lcprune.training._step import (
    Batches,
    Losses,
    Step,
    check_job,
    epoch_of,
    lay_out,
    length_of,
    on_device_of,
    seed_of,
    sgd,
)

_MOST_PROCESSES = 1024


def finetune(
    model: nn.Module,
    train_loader: Batches,
    val_loader: Batches | None = None,
    *,
    teacher: nn.Module | None = None,
    config: TrainingConfig | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    hooks: Sequence[TrainingHook] = (),
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepProgress], None] | None = None,
    device: str = "cpu",
    processes: int = 1,
) -> TrainingResult:
    """Train ``model`` in place; it ends on ``device``, in eval mode, with the last epoch's weights.

    With ``config.ema`` those are the averaged ones, and they are what is validated.

    The loaders can be iterated again and again and yield (inputs, targets): inputs as the model
    takes them, targets int64 (N,). One that has ``set_epoch(int)`` is told the epoch, from 0; one
    that has ``on_device(device)`` is asked for its like that yields batches there. A copy of
    ``teacher`` is distilled from. ``hooks`` are what else is done in each step. After every epoch
    the state is written to ``checkpoint`` and the report given to ``on_epoch``; ``resume``
    continues from that file, where there is one, bit for bit as if there had been no break.
    Within an epoch ``on_step`` is told about once a second how far it is. Dropout and the like
    draw from PyTorch's global generators, which are seeded for the training and left as they were.

    With ``processes`` that many are started, on a GPU each or all on the CPU, and train on parts
    of each batch: the result is that of one process up to rounding and dropout's draws. Loaders
    must have ``shard(rank, count)``, which yields (inputs, targets, N) of a rank's part of each
    batch (``lcprune.data.part_of``) and the whole batch's size. Callbacks are called here.

    ``InputError`` where the training diverges (the checkpoint of the last good epoch stays) or
    there is nothing to train; ``RunError`` where the checkpoint is not one of this training.
    """
    check_job(model, train_loader, val_loader, teacher, config, hooks)
    instance("resume", resume, bool, "True or False")
    integer("processes", processes, 1, _MOST_PROCESSES)
    for name, callback in (("on_epoch", on_epoch), ("on_step", on_step)):
        if callback is not None:
            function(name, callback)
    job = _Job(
        model=model,
        train=train_loader,
        validation=val_loader,
        teacher=teacher,
        config=config or TrainingConfig(),
        checkpoint=None if checkpoint is None else path("checkpoint", checkpoint, of_file=True),
        resume=resume,
        hooks=tuple(hooks),
    )

    def tell(report: EpochReport | StepProgress) -> None:
        callback: Any = on_step if isinstance(report, StepProgress) else on_epoch
        if callback is not None:
            callback(report)

    if processes == 1:
        return _fit(job, Ranks(device=device_named(device)), tell)
    device_of(device, 0, processes)
    for loader in (train_loader, val_loader):
        if loader is not None and not hasattr(loader, "shard"):
            raise InputError(
                f"training in {processes} processes needs loaders with shard(rank, count), "
                f"as those of lcprune.data; got {type(loader).__name__}"
            )

    model.cpu()  # what a GPU holds would be there again in every rank
    job = replace(job, teacher=None if teacher is None else copy.deepcopy(teacher).cpu())
    fitted = run_ranks(partial(_fit_in_rank, job), processes, device, tell)
    assert fitted is not None  # as rank zero's is not
    result, state, states = fitted
    model.load_state_dict(state)
    model.to(device).eval()
    for hook, own in zip(hooks, states, strict=True):
        hook.load_state_dict(own)
    return result


@dataclass(frozen=True)
class _Job:
    """What is to be trained, on what and how."""

    model: nn.Module
    train: Any
    validation: Any
    teacher: nn.Module | None
    config: TrainingConfig
    checkpoint: Path | None
    resume: bool
    hooks: tuple[TrainingHook, ...]


def _fit_in_rank(
    job: _Job, ranks: Ranks, tell: Tell
) -> tuple[TrainingResult, dict[str, Any], list[dict[str, Any]]] | None:
    result = _fit(job, ranks, tell if ranks.rank == 0 else lambda _: None)
    if ranks.rank > 0:
        return None
    state = {name: value.cpu() for name, value in job.model.state_dict().items()}
    return result, state, [hook.state_dict() for hook in job.hooks]


def _fit(job: _Job, ranks: Ranks, tell: Tell) -> TrainingResult:
    """The training of one process, alone or as one of several ranks."""
    config, model, device = job.config, job.model.to(ranks.device), ranks.device
    train, validation = on_device_of(job.train, device), on_device_of(job.validation, device)
    steps = length_of(train)
    channels_last = lay_out(model, config)
    optimizer = sgd(model, config)
    watch = DivergenceWatch(config)
    average = None if config.ema is None else WeightAverage(model, config.ema)
    hooks = (watch, *job.hooks, *([] if average is None else [average]))
    ending = model if average is None else average.module

    with seeded(seed_of(config.seed, ranks.rank)):
        done = Progress()
        if job.resume and job.checkpoint is not None and job.checkpoint.exists():
            done = load_checkpoint(job.checkpoint, model, optimizer, hooks, config, ranks.count)
            restore_generators(done.generators[ranks.rank], device)
        reports, count = done.reports, done.steps
        step = Step(model, optimizer, config, job.teacher, ranks, hooks)

        for epoch in range(len(reports), config.epochs):
            clock = EpochClock(epoch, config.epochs, steps, tell)
            losses = Losses(ranks)
            mix = Mixup(config.mixup, config.seed, epoch)
            model.train()
            for number, (inputs, targets, size) in enumerate(ranks.parts(epoch_of(train, epoch))):
                # A loader of unknown length holds the rate for an epoch: that of its middle.
                within = 0.5 if steps is None else number / steps
                rate = config.learning_rate_at((epoch + within) / config.epochs)
                loss = step(inputs, targets, size, mix, rate, count)
                watch.check(losses.add(loss, size), step.blind_loss, epoch)
                clock.step(size, losses.latest)
                count += 1
            # Waits for the GPU, once an epoch.
            watch.check(losses.read_all(), step.blind_loss, epoch)
            if losses.samples == 0:
                raise InputError("the training data hold no batch")
            speed = clock.images_per_second
            for hook in hooks:
                hook.after_epoch(model, epoch)
            top1 = None if validation is None else _accuracy(ending, validation, ranks)

            seconds = clock.seconds
            spent = sum(report.seconds for report in reports) + seconds
            report = EpochReport(
                epoch=epoch + 1,
                epochs=config.epochs,
                loss=losses.mean,
                learning_rate=float(optimizer.param_groups[0]["lr"]),
                seconds=seconds,
                seconds_left=spent / (epoch + 1) * (config.epochs - epoch - 1),
                images_per_second=speed,
                val_accuracy=top1,
            )
            reports = (*reports, report)
            generators = tuple(ranks.gather(generator_states(device)))
            # What ends an epoch while the loss climbs may turn out to be lost.
            whole = not watch.climbing or epoch + 1 == config.epochs
            if ranks.rank == 0 and job.checkpoint is not None and whole:
                progress = Progress(reports, count, generators)
                save_checkpoint(job.checkpoint, model, optimizer, hooks, config, progress)
            tell(report)

    if average is not None and reports:
        model.load_state_dict(average.module.state_dict())
    if channels_last:
        model.to(memory_format=torch.contiguous_format)
    model.eval()
    return TrainingResult(reports)


def _accuracy(model: nn.Module, loader: Batches, ranks: Ranks) -> float:
    """Percentage of samples whose largest logit is that of their target, over all ranks."""
    # A batch of fewer samples than there are ranks is everybody's, and counts once.
    whole = (part for part in ranks.parts(loader) if len(part[1]))
    parts = ((x, y, ranks.weight(size) * size / len(y)) for x, y, size in whole)
    right, count = ranks.sum(*count_right(model, parts, ranks.device))
    if count == 0:
        raise InputError("the validation data hold no sample")
    return 100 * right / count
