"""Training of a run's networks, and the training job."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lcprune._checks import path as checked_path
from lcprune.artifact import save, versions
from lcprune.cost import CostModel
from lcprune.data import Data, ImageSet, TrainingBatches, ValidationBatches, training_batches
from lcprune.errors import LcpruneError
from lcprune.fitness import Precision
from lcprune.ranking import Plan
from lcprune.runs._choices import Choices
from lcprune.runs._options import AUTO, Options, PruneOptions, TrainOptions
from lcprune.runs._problem import Base, Problem, first_images, load_base
from lcprune.runs._reporter import Reporter, Silent
from lcprune.runs._run import CHECKPOINT, Run, RunState, earlier_run, open_run
from lcprune.runs._summary import Scores, TrainSummary, peak_rss_mb, read_train_summary
from lcprune.tracing import trace
from lcprune.training import (
    EpochReport,
    Schedule,
    StepProgress,
    TrainingConfig,
    TrainingResult,
    choose_training_precision,
    evaluate_top1,
    evaluation_batch,
    find_learning_rate,
    finetune,
)

FLOAT32 = Precision("float32", channels_last=True)


def train_job(
    config: TrainOptions,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    force: bool = False,
    remeasure: bool = False,
    reporter: Reporter | None = None,
) -> TrainSummary:
    """Train a model and write it, with its figures, to the directory ``out``.

    The directory can be evaluated and loaded as that of a pruning run, and its
    ``model.safetensors`` is what ``prune --weights`` takes. The other arguments and errors are
    as for ``prune_job``.
    """
    out = checked_path("out", out)
    reporter = reporter or Silent()
    state, record = earlier_run(config, out, "train", resume=resume, force=force)
    if record is not None and state is RunState.FINISHED:
        return read_train_summary(out)
    base = load_base(config, new_head=config.new_head)
    data, model, device = base.data, base.model, base.device
    if base.head:
        reporter.stage(f"new head for {len(data.classes)} classes: {', '.join(base.head)}")
    with open_run(out, config, "train", record, reporter, force=force) as run:
        run.same("data_sha256", data.fingerprint, "data")
        model.to(device)
        precision = training_precision(
            run,
            config,
            model,
            lambda: first_images(data, config.batch_size, device),
            Choices(remeasure=remeasure),
        )
        result = train(
            run,
            config,
            base,
            model,
            "training",
            training_config(config, config.epochs, precision),
            out / CHECKPOINT,
            validate=True,
        )
        scores = {"after": Scores(evaluate_top1(model, data.test, data))}
        if base.held is not None:
            scores["held_out"] = Scores(evaluate_top1(model, base.held, data))
        model.cpu()
        save(
            model,
            out,
            plan=Plan(kept={}),
            factory=config.model,
            example_input=base.example,
            classes=len(data.classes),
        )
        summary = TrainSummary(
            model=config.model,
            data=config.data,
            seed=config.seed,
            epochs=config.epochs,
            train_images=len(data.train),
            held_out_images=0 if base.held is None else len(base.held),
            loss=result.loss,
            scores=scores,
            macs=_macs(model, base.example),
            params=sum(parameter.numel() for parameter in model.parameters()),
            train_seconds=result.seconds,
            dtype_train=precision.dtype,
            threads=torch.get_num_threads(),
            device=str(device),
            peak_rss_mb=peak_rss_mb(),
            versions=versions(),
            history=[_epoch(report) for report in result.reports],
            choices=made_choices(run),
        )
        run.finish(summary.to_json())
    return summary


def train(
    run: Run,
    options: Options,
    on: Problem | Base,
    model: nn.Module,
    name: str,
    training: TrainingConfig,
    checkpoint: Path,
    *,
    teacher: nn.Module | None = None,
    validate: bool = False,
) -> TrainingResult:
    """Train ``model`` in place on the training images, from its checkpoint if there is one.

    With ``validate`` the accuracy on the images held out is told after each epoch; within one it
    is told how far it is. Where a range test shall find the learning rate, it does so once a run.
    """
    batches = batches_of(on.data.train, on.data, options)
    training = with_found_rate(
        run, options, name, training, lambda: model, batches, on.device, teacher
    )
    held = on.held if validate else None
    loader = None
    if held is not None:
        loader = ValidationBatches(held, on.data, evaluation_batch(held.shape))
    with run.reporter.progress(name, training.epochs) as advance:

        def on_step(at: StepProgress) -> None:
            if at.steps is not None and at.step < at.steps:  # of the last one the epoch tells
                loss = "" if at.loss is None else f"loss {at.loss:.4f}  "
                speed = f"{at.images_per_second:,.0f} images/s"
                advance(at.epoch - 1 + at.step / at.steps, loss + speed)

        return finetune(
            model,
            batches,
            loader,
            teacher=teacher,
            config=training,
            checkpoint=checkpoint,
            resume=checkpoint.exists(),
            on_epoch=lambda report: advance(report.epoch, _line_of(report)),
            on_step=on_step,
            device=str(on.device),
            processes=options.processes,
        )


def with_found_rate(
    run: Run,
    options: Options,
    name: str,
    training: TrainingConfig,
    model: Callable[[], nn.Module],
    batches: TrainingBatches,
    device: torch.device,
    teacher: nn.Module | None,
) -> TrainingConfig:
    """``training`` at the rate that a range test finds, once a run, where that is asked for."""
    if options.learning_rate != AUTO or not training.epochs:
        return training
    rate: float = run.once(
        f"{name} learning rate",
        float,
        lambda: (
            find_learning_rate(
                model(), batches, teacher=teacher, config=training, device=str(device)
            ).suggested
        ),
    )
    run.reporter.stage(f"{name}: learning rate {rate:.2g} by a range test")
    return replace(training, learning_rate=rate)


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


def training_config(options: Options, epochs: int, precision: Precision) -> TrainingConfig:
    """What ``options`` say of a training without a teacher."""
    rate = options.learning_rate
    return TrainingConfig(
        epochs=epochs,
        learning_rate=rate if isinstance(rate, float) else TrainingConfig().learning_rate,
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
    options: PruneOptions, epochs: int, precision: Precision, teachers: Precision
) -> TrainingConfig:
    """What ``options`` say of training what was cut; ``teachers`` is what the teacher runs in."""
    return replace(
        training_config(options, epochs, precision),
        temperature=options.temperature,
        alpha=options.distill_weight,
        teacher_precision=teachers,
    )


def training_precision(
    run: Run, options: Options, model: nn.Module, batch: Callable[[], Tensor], choices: Choices
) -> Precision:
    """What ``options`` ask for, or what a measurement on a batch found; it holds for the run."""
    asked, measure = options.train_dtype, choose_training_precision
    return chosen_precision(run, "training", asked, model, batch, measure, choices)


def chosen_precision(
    run: Run,
    kind: str,
    asked: str,
    model: nn.Module,
    batch: Callable[[], Tensor],
    measure: Callable[[nn.Module, Tensor], Precision],
    choices: Choices,
) -> Precision:
    """The one of the number format ``asked``; for auto a choice by measurement, once a run."""
    if asked != AUTO:
        return Precision(asked, channels_last=asked != "float32")

    def choose() -> dict[str, Any]:
        inputs = batch()
        return asdict(choices.choose(kind, model, inputs, lambda: measure(model, inputs)))

    found: Precision = run.once(f"{kind} precision", Precision, choose)
    return found


def made_choices(run: Run) -> dict[str, dict[str, Any]]:
    """What a run chose by measurement."""
    found = {kind: run.record.state.get(f"{kind} precision") for kind in ("search", "training")}
    return {kind: choice for kind, choice in found.items() if choice is not None}


def _line_of(report: EpochReport) -> str:
    accuracy = report.val_accuracy
    held_out = "" if accuracy is None else f"  held out: top-1 {accuracy:.2f} %"
    return f"loss {report.loss:.4f}  {report.images_per_second:,.0f} images/s{held_out}"


def _epoch(report: EpochReport) -> dict[str, float | None]:
    return {
        "epoch": report.epoch,
        "loss": report.loss,
        "learning_rate": report.learning_rate,
        "seconds": report.seconds,
        "images_per_second": report.images_per_second,
        "top1_held_out": report.val_accuracy,
    }


def _macs(model: nn.Module, example_input: Tensor) -> int | None:
    """Multiply-adds of a forward pass; none for a model that can be trained but not traced."""
    try:
        return CostModel(trace(model, example_input)).evaluate()["macs"]
    except LcpruneError:
        return None
