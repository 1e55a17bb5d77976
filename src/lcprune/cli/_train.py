"""Training of a run's networks."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import nn

from lcprune.cli._config import PruneConfig
from lcprune.cli._prepare import Inputs
from lcprune.cli._progress import Reporter
from lcprune.data import AugmentedBatches
from lcprune.fitness import Precision
from lcprune.training import (
    EpochReport,
    Schedule,
    TrainingConfig,
    TrainingPrecision,
    TrainingResult,
    finetune,
)

FLOAT32 = TrainingPrecision("float32", channels_last=True)


def train(
    model: nn.Module,
    config: PruneConfig,
    inputs: Inputs,
    name: str,
    *,
    epochs: int,
    teacher: nn.Module | None,
    teacher_precision: Precision | None = None,
    precision: TrainingPrecision = FLOAT32,
    checkpoint: Path,
    reporter: Reporter,
) -> TrainingResult:
    """Train ``model`` in place on all training images, from its checkpoint if there is one."""
    batches = AugmentedBatches(
        inputs.data.train,
        inputs.data,
        config.batch_size,
        crop=config.crop,
        flip=config.flip,
        seed=config.seed,
    )
    with reporter.progress(name, epochs) as advance:

        def on_epoch(report: EpochReport) -> None:
            advance(report.epoch, f"loss {report.loss:.4f}")

        return finetune(
            model,
            batches,
            teacher=teacher,
            config=TrainingConfig(
                epochs=epochs,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                schedule=cast(Schedule, config.schedule),
                temperature=config.temperature,
                alpha=config.distill_weight,
                seed=config.seed,
                dtype=precision.dtype,
                channels_last=precision.channels_last,
                teacher_precision=teacher_precision or Precision(),
            ),
            checkpoint=checkpoint,
            resume=checkpoint.exists(),
            on_epoch=on_epoch,
            device=str(inputs.device),
        )
