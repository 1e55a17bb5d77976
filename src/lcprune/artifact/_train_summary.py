"""The figures of a finished training, as its ``summary.json`` holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcprune.artifact._finish import finish, read_final
from lcprune.artifact._layout import SUMMARY
from lcprune.errors import InputError

TRAIN_SUMMARY_SCHEMA = 1


@dataclass(frozen=True)
class TrainSummary:
    """What a training did. Accuracies are percent, in float32, after the last epoch.

    ``top1_held_out`` is that of the training images that were set aside, none where none were;
    ``weights_sha256`` is the hash of ``model.safetensors``; ``history`` has loss, learning rate,
    seconds and accuracy on the images held out of every epoch.
    """

    model: str
    data: str
    seed: int
    epochs: int
    train_images: int
    held_out_images: int
    loss: float | None
    top1: float
    top1_held_out: float | None
    macs: int | None
    params: int
    train_seconds: float
    dtype_train: str
    threads: int
    device: str
    peak_rss_mb: float | None
    weights_sha256: str
    versions: Mapping[str, str]
    history: Sequence[Mapping[str, float | None]]
    schema: int = TRAIN_SUMMARY_SCHEMA

    def to_json(self) -> str:
        """The summary as JSON text, the schema first."""
        values = asdict(self)
        return json.dumps({"schema": values.pop("schema"), **values}, indent=1, allow_nan=False)


def write_train_summary(directory: Path, summary: TrainSummary) -> None:
    """Write ``summary.json`` whole; ``RunError`` where it can't be written."""
    finish(directory, summary.to_json())


def read_train_summary(directory: Path) -> TrainSummary:
    """The summary of a training; ``InputError`` where there is none or it can't be read."""
    path = directory / SUMMARY
    text = read_final(directory)
    try:
        raw: dict[str, Any] = json.loads(text)
        if raw["schema"] != TRAIN_SUMMARY_SCHEMA:
            raise InputError(
                f"{path}: summary of schema {raw['schema']}, expected {TRAIN_SUMMARY_SCHEMA}"
            )
        return TrainSummary(**raw)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the summary of a training") from error
