"""Training of a run's networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lcprune.data import Data, ImageSet, TrainingBatches, training_batches
from lcprune.fitness import Precision
from lcprune.runs._findings import Findings
from lcprune.runs._options import AUTO, Options, PruneOptions
from lcprune.runs._reporter import Reporter
from lcprune.training import (
    Dtype,
    EpochReport,
    Schedule,
    TrainingConfig,
    TrainingPrecision,
    TrainingResult,
    choose_training_precision,
    evaluation_batch,
    find_learning_rate,
    finetune,
)

FLOAT32 = TrainingPrecision("float32", channels_last=True)


def train(
    model: nn.Module,
    options: Options,
    data: Data,
    name: str,
    *,
    training: TrainingConfig,
    findings: Findings,
    checkpoint: Path,
    device: torch.device,
    reporter: Reporter,
    teacher: nn.Module | None = None,
    held: ImageSet | None = None,
) -> TrainingResult:
    """Train ``model`` in place on the training images, from its checkpoint if there is one.

    After each epoch the accuracy on the images ``held`` out is told. Where a range test shall
    find the learning rate, it does so once a run.
    """
    batches = batches_of(data.train, data, options)
    training = with_found_rate(
        training,
        options,
        name,
        lambda: model,
        batches,
        teacher=teacher,
        findings=findings,
        device=device,
        reporter=reporter,
    )
    with reporter.progress(name, training.epochs) as advance:

        def on_epoch(report: EpochReport) -> None:
            accuracy = report.val_accuracy
            held_out = "" if accuracy is None else f"  held out: top-1 {accuracy:.2f} %"
            advance(report.epoch, f"loss {report.loss:.4f}{held_out}")

        return finetune(
            model,
            batches,
            None if held is None else ValidationBatches(held, data, evaluation_batch(held.shape)),
            teacher=teacher,
            config=training,
            checkpoint=checkpoint,
            resume=checkpoint.exists(),
            on_epoch=on_epoch,
            device=str(device),
        )


def batches_of(images: ImageSet, data: Data, options: Options) -> TrainingBatches:
    """Training batches of some of the images of ``data``, as ``options`` ask for them."""
    return training_batches(
        images,
        data,
        options.batch_size,
        crop=options.crop,
        flip=options.flip,
        seed=options.seed,
    )


def with_found_rate(
    training: TrainingConfig,
    options: Options,
    name: str,
    model: Callable[[], nn.Module],
    batches: TrainingBatches,
    *,
    teacher: nn.Module | None,
    findings: Findings,
    device: torch.device,
    reporter: Reporter,
) -> TrainingConfig:
    """``training`` at the rate that a range test finds, once a run, where that is asked for."""
    if options.learning_rate != AUTO or not training.epochs:
        return training

    def found() -> float:
        return find_learning_rate(
            model(), batches, teacher=teacher, config=training, device=str(device)
        ).suggested

    rate = findings.once(f"{name} learning rate", found)
    reporter.stage(f"{name}: learning rate {rate:.2g} by a range test")
    return replace(training, learning_rate=rate)


def training_config(options: Options, epochs: int, precision: TrainingPrecision) -> TrainingConfig:
    """What ``options`` say of a training without a teacher."""
    return TrainingConfig(
        epochs=epochs,
        learning_rate=_given_rate(options),
        weight_decay=options.weight_decay,
        schedule=cast(Schedule, options.schedule),
        label_smoothing=options.label_smoothing,
        mixup=options.mixup,
        ema=options.ema or None,
        clip=options.clip or None,
        seed=options.seed,
        dtype=precision.dtype,
        channels_last=precision.channels_last,
    )


def finetuning_config(
    config: PruneOptions, epochs: int, precision: TrainingPrecision, teachers: Precision
) -> TrainingConfig:
    """What ``config`` says of training what was cut; ``teachers`` is what the teacher runs in."""
    return replace(
        training_config(config, epochs, precision),
        temperature=config.temperature,
        alpha=config.distill_weight,
        teacher_precision=teachers,
    )


def _given_rate(options: Options) -> float:
    rate = options.learning_rate
    return rate if isinstance(rate, float) else TrainingConfig().learning_rate


def training_precision(
    options: Options, model: nn.Module, batch: Callable[[], Tensor], findings: Findings
) -> TrainingPrecision:
    """What ``options`` ask for, or what a measurement on a batch found; it holds for the run."""
    asked = options.train_dtype
    if asked != "auto":
        return TrainingPrecision(cast(Dtype, asked), channels_last=asked != "float32")

    def measured() -> dict[str, Any]:
        return asdict(choose_training_precision(model, batch()))

    return TrainingPrecision(**findings.once("training_precision", measured))


class ValidationBatches:
    """The images of a set in order, normalised, as often as they are asked for."""

    def __init__(self, images: ImageSet, data: Data, batch: int) -> None:
        self._images = images
        self._data = data
        self._batch = batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, labels in self._images.batches(self._batch):
            yield self._data.normalise(pixels), labels
