"""The training job, from what the user gave to a finished run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lcprune import artifact
from lcprune.artifact import RunState, TrainSummary, versions
from lcprune.cost import CostModel
from lcprune.data import Data, ImageSet, first_pixels
from lcprune.errors import LcpruneError
from lcprune.models import build, load_weights
from lcprune.ranking import Plan
from lcprune.runs._directory import at_work, earlier_run
from lcprune.runs._findings import Findings
from lcprune.runs._measure import peak_rss_mb
from lcprune.runs._options import TrainOptions
from lcprune.runs._prepare import check_logits, choose_device, load
from lcprune.runs._reporter import Reporter, Silent
from lcprune.runs._train import train, training_config, training_precision
from lcprune.tracing import trace
from lcprune.training import (
    EpochReport,
    TrainingPrecision,
    TrainingResult,
    alike,
    evaluate_top1,
    is_main,
    on_main,
)


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What a training works with; ``data.train`` lacks what is held out."""

    data: Data
    held: ImageSet | None
    model: nn.Module
    example_input: Tensor
    device: torch.device
    head: tuple[str, ...]


def train_job(
    config: TrainOptions,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    remeasure: bool = False,
    reporter: Reporter | None = None,
) -> TrainSummary:
    """Train a model and write it, with its figures, to the directory ``out``.

    The directory can be evaluated and loaded as that of a pruning run, and its
    ``model.safetensors`` is what ``prune --weights`` takes. ``resume``, ``force`` and errors are
    as for ``prune_job``.
    """
    out = Path(out)
    reporter = reporter if reporter is not None and is_main() else Silent()
    state, record = earlier_run(config, out, "train", resume=resume, force=force)
    if record is not None and state is RunState.FINISHED:
        return on_main(lambda: artifact.read_train_summary(out))
    with alike():
        inputs = _prepare(config)
    if inputs.head:
        reporter.stage(f"new head for {len(inputs.data.classes)} classes: {', '.join(inputs.head)}")
    with at_work(config, out, "train", record) as findings:
        with alike():
            result, precision = _train(config, out, inputs, findings, reporter)
        summary = on_main(lambda: _saved(config, out, inputs, result, precision))
        on_main(lambda: artifact.write_train_summary(out, summary))
    return summary


def _prepare(config: TrainOptions) -> _Inputs:
    device = choose_device(config.device)
    data, held = load(config)
    model = build(
        config.model, classes=len(data.classes), input_shape=data.input_shape, seed=config.seed
    )
    head = load_weights(
        model,
        config.weights,
        config.model,
        classes=len(data.classes),
        new_head=config.new_head,
    )
    example_input = data.normalise(first_pixels(data.train, 1))
    check_logits(model.eval(), example_input, data)
    return _Inputs(data, held, model, example_input, device, head)


def _train(
    config: TrainOptions, out: Path, inputs: _Inputs, findings: Findings, reporter: Reporter
) -> tuple[TrainingResult, TrainingPrecision]:
    data, model, device = inputs.data, inputs.model.to(inputs.device), inputs.device
    findings.same("data_sha256", data.fingerprint, "data")
    precision = training_precision(
        config,
        model,
        lambda: data.normalise(first_pixels(data.train, config.batch_size)).to(device),
        findings,
    )
    result = train(
        model,
        config,
        data,
        "training",
        training=training_config(config, config.epochs, precision),
        findings=findings,
        held=inputs.held,
        checkpoint=out / artifact.CHECKPOINT,
        device=device,
        reporter=reporter,
    )
    return result, precision


def _saved(
    config: TrainOptions,
    out: Path,
    inputs: _Inputs,
    result: TrainingResult,
    precision: TrainingPrecision,
) -> TrainSummary:
    """Write the trained model, and sum up."""
    data, model = inputs.data, inputs.model
    top1 = evaluate_top1(model, data.test, data)
    held = None if inputs.held is None else evaluate_top1(model, inputs.held, data)
    artifact.save(
        model.cpu(),
        out,
        plan=Plan(kept={}),
        factory=config.model,
        example_input=inputs.example_input,
        classes=len(data.classes),
    )
    return TrainSummary(
        model=config.model,
        data=config.data,
        seed=config.seed,
        epochs=config.epochs,
        train_images=len(data.train),
        held_out_images=0 if inputs.held is None else len(inputs.held),
        loss=result.loss,
        top1=top1,
        top1_held_out=held,
        macs=_macs(model, inputs.example_input),
        params=sum(parameter.numel() for parameter in model.parameters()),
        train_seconds=result.seconds,
        dtype_train=precision.dtype,
        threads=torch.get_num_threads(),
        device=str(inputs.device),
        peak_rss_mb=peak_rss_mb(),
        weights_sha256=artifact.sha256_of(out / artifact.WEIGHTS),
        versions=versions(),
        history=[_epoch(report) for report in result.reports],
    )


def _epoch(report: EpochReport) -> dict[str, float | None]:
    return {
        "epoch": report.epoch,
        "loss": report.loss,
        "learning_rate": report.learning_rate,
        "seconds": report.seconds,
        "top1_held_out": report.val_accuracy,
    }


def _macs(model: nn.Module, example_input: Tensor) -> int | None:
    """Multiply-adds of a forward pass; none for a model that can be trained but not traced."""
    try:
        return CostModel(trace(model, example_input)).evaluate()["macs"]
    except LcpruneError:
        return None
