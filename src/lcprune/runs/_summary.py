"""The figures of a finished run, as ``summary.json`` holds them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from lcprune._checks import of_type, path
from lcprune._text import shown
from lcprune.errors import InputError
from lcprune.runs._run import SUMMARY, read_result

SCHEMA = 1


@dataclass(frozen=True)
class Cost:
    """A resource before and after the cut, in ``unit``; ``asked`` and ``limit`` of its bound.

    Those are none where there was no bound. ``latency`` is as it was measured, all others are as
    they were counted.
    """

    unit: str
    asked: str | None
    limit: int | None
    before: int
    after: int
    ratio: float
    met: bool


@dataclass(frozen=True)
class Scores:
    """Accuracy on the test split, percent, float32; none where it was not measured."""

    top1: float | None


@dataclass(frozen=True)
class Latency:
    """Milliseconds for a forward pass of ``batch`` samples, on the CPU but for PyTorch's own.

    The least of at least 100 passes, before and after in turns (10 where they take minutes).
    ``predicted_ms`` is what the table of operators said of the network after the cut, with the
    factor that measurements had corrected it by.
    """

    engine: str
    batch: int
    threads: int
    before_ms: float | None
    after_ms: float | None
    predicted_ms: float | None = None


@dataclass(frozen=True)
class FinalistOutcome:
    """A plan that was tried: its loss in the search, and after a short training on fresh images.

    ``loss_trained`` is none where it was not trained, as the only one, or the loss was not finite.
    """

    loss_search: float
    loss_trained: float | None


Kind = TypeVar("Kind", bound="Figures")


class Figures:
    """A dataclass as JSON."""

    def to_json(self) -> str:
        """The summary as JSON text, the schema first; ``ValueError`` for what JSON lacks."""
        values = asdict(self)  # type: ignore[call-overload]
        return json.dumps({"schema": SCHEMA, **values}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a summary; ``InputError`` where the text is not one."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not a summary: {type(error).__name__}: {error}") from error
        if not isinstance(raw, dict) or "schema" not in raw:
            raise InputError("not a summary: it has no schema")
        schema = raw.pop("schema")
        if schema != SCHEMA:
            raise InputError(f"summary of schema {shown(schema)}, expected {SCHEMA}")
        try:
            found: Self = of_type("summary", raw, cls)
        except InputError as error:
            raise InputError(f"not a summary: {error}") from error
        return found

    @classmethod
    def keys(cls) -> frozenset[str]:
        """The keys of ``summary.json``."""
        return frozenset({"schema", *(field.name for field in fields(cls))})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Summary(Figures):
    """What a pruning run did; none: not measured.

    ``costs`` are by resource: MACs (multiply-adds of convolutions and matrix products) and
    parameters always, others where they were bounded, latency where it was measured on an engine.
    ``scores`` are those of the base network (``before``), of the cut one after recalibration and
    before any training (``pruned``), of that with its layers refitted to the original
    (``reconstructed``, where that was done), and after the last epoch (``after``).
    ``training_checked`` tells whether training mode was followed and compared, too. ``finalists``
    are those that the plan was chosen from, in the order of the search; none where it is the
    search's best without a choice. ``choices`` are those that were made by measurement.
    """

    model: str
    data: str
    seed: int
    costs: Mapping[str, Cost]
    scores: Mapping[str, Scores]
    criterion: str
    compensation: str
    strategy: str
    round_to: int | str
    verify_error: float | None
    training_checked: bool
    loss_search_best: float | None
    trials: int
    search_seconds: float | None
    finetune_epochs: int
    finetune_seconds: float | None
    latency: tuple[Latency, ...]
    dtype_search: str | None
    threads: int
    device: str
    peak_rss_mb: float | None
    base_weights_sha256: str
    versions: Mapping[str, str]
    finalists: tuple[FinalistOutcome, ...] | None
    choices: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TrainSummary(Figures):
    """What a training did; none: not measured.

    ``scores`` has ``after``, on the test split after the last epoch, and ``held_out``, on the
    training images that were set aside. ``history`` has loss, learning rate, seconds and accuracy
    on the images held out of every epoch.
    """

    model: str
    data: str
    seed: int
    epochs: int
    train_images: int
    held_out_images: int
    loss: float | None
    scores: Mapping[str, Scores]
    macs: int | None
    params: int
    train_seconds: float
    dtype_train: str
    threads: int
    device: str
    peak_rss_mb: float | None
    versions: Mapping[str, str]
    history: Sequence[Mapping[str, float | None]]
    choices: Mapping[str, Mapping[str, Any]]


def read_summary(directory: str | os.PathLike[str]) -> Summary:
    """The summary of a pruning run; ``InputError`` where there is none or it can't be read."""
    return read_figures(path("directory", directory), Summary)


def read_train_summary(directory: str | os.PathLike[str]) -> TrainSummary:
    """The summary of a training; ``InputError`` where there is none or it can't be read."""
    return read_figures(path("directory", directory), TrainSummary)


def peak_rss_mb() -> float | None:
    """The largest resident set of this process so far in MiB; none where the system can't say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (1024**2 if sys.platform == "darwin" else 1024)


def read_figures(directory: Path, kind: type[Kind], name: str = SUMMARY) -> Kind:
    """The figures of that kind in a finished directory; ``InputError`` where there are none."""
    where = directory / name
    if not os.path.lexists(where):
        raise InputError(f"{directory} holds no finished run: {where} is missing")
    content = read_result(directory, name)
    try:
        return kind.from_json(content)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
