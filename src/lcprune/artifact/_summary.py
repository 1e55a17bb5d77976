"""The figures of a finished run, as ``summary.json`` holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lcprune.artifact._finish import finish, read_final
from lcprune.artifact._layout import SUMMARY
from lcprune.errors import InputError

SUMMARY_SCHEMA = 1


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one forward pass of ``batch`` samples: the median of repeated passes."""

    value: float
    engine: str
    batch: int
    threads: int


@dataclass(frozen=True)
class BudgetOutcome:
    """One bound: as asked, as a number, and the resource before and after the cut."""

    asked: str
    limit: int
    before: int
    after: int
    ratio: float


@dataclass(frozen=True)
class FinalistOutcome:
    """A plan that was tried: its loss in the search, and after a short training on fresh images.

    ``loss_trained`` is none where it was not trained, as the only one, or the loss was not finite.
    """

    loss_search: float
    loss_trained: float | None


@dataclass(frozen=True)
class Summary:
    """What a run did. Accuracies are percent of the test split, in float32; none: not measured.

    ``top1_pruned`` is that of the cut network after recalibration and before any training,
    ``top1_after`` that of the last epoch. One MAC is one multiply-add of a convolution or a
    matrix product. ``finalists`` are those that the plan was chosen from, in the order of the
    search; none where it is the search's best without a choice.
    """

    model: str
    data: str
    seed: int
    budget: Mapping[str, BudgetOutcome]
    criterion: str
    compensation: str
    strategy: str
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    top1_before: float | None
    top1_pruned: float | None
    top1_after: float | None
    verify_error: float | None
    loss_search_best: float | None
    trials: int
    search_seconds: float | None
    finetune_epochs: int
    finetune_seconds: float | None
    latency_ms_before: Latency | None
    latency_ms_after: Latency | None
    dtype_search: str | None
    threads: int
    device: str
    peak_rss_mb: float | None
    base_weights_sha256: str
    versions: Mapping[str, str]
    finalists: tuple[FinalistOutcome, ...] | None = None
    schema: int = SUMMARY_SCHEMA

    def to_json(self) -> str:
        """The summary as JSON text, the schema first."""
        values = asdict(self)
        return json.dumps({"schema": values.pop("schema"), **values}, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Summary:
        """Read a summary; ``InputError`` where the text is not one."""
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw["schema"] != SUMMARY_SCHEMA:
                raise InputError(f"summary of schema {raw['schema']}, expected {SUMMARY_SCHEMA}")
            raw["budget"] = {name: BudgetOutcome(**value) for name, value in raw["budget"].items()}
            for name in ("latency_ms_before", "latency_ms_after"):
                raw[name] = None if raw[name] is None else Latency(**raw[name])
            if raw.get("finalists") is not None:  # absent before there were any
                raw["finalists"] = tuple(FinalistOutcome(**value) for value in raw["finalists"])
            return Summary(**raw)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a summary: {type(error).__name__}: {error}") from error

    @staticmethod
    def keys() -> frozenset[str]:
        """The keys of ``summary.json``."""
        return frozenset(field.name for field in fields(Summary))


def write_summary(directory: Path, summary: Summary) -> None:
    """Write ``summary.json`` whole; ``RunError`` where it can't be written."""
    finish(directory, summary.to_json())


def read_summary(directory: Path) -> Summary:
    """The summary in a run directory; ``InputError`` where there is none or it can't be read."""
    text = read_final(directory)
    try:
        return Summary.from_json(text)
    except InputError as error:
        raise InputError(f"{directory / SUMMARY}: {error}") from error
