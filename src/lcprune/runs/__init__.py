"""Runs of ``prune`` and ``train``: options, the stages, and what is kept between processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcprune._lazy import lazily
from lcprune.runs._options import (
    DemoOptions,
    DirectoryOptions,
    EvaluateOptions,
    InspectOptions,
    Options,
    PruneOptions,
    RunOptions,
    TrainOptions,
    resolve,
)
from lcprune.runs._reporter import Advance, Reporter, Silent, warnings_to
from lcprune.runs._resolve import Concern, Option, option, options_of, resolve_as

if TYPE_CHECKING:
    from lcprune.runs._directory import check_command
    from lcprune.runs._measure import measure_latencies
    from lcprune.runs._prepare import check_logits, choose_device
    from lcprune.runs._prune_job import prune_job
    from lcprune.runs._train_job import train_job

__all__ = [
    "Advance",
    "Concern",
    "DemoOptions",
    "DirectoryOptions",
    "EvaluateOptions",
    "InspectOptions",
    "Option",
    "Options",
    "PruneOptions",
    "Reporter",
    "RunOptions",
    "Silent",
    "TrainOptions",
    "check_command",
    "check_logits",
    "choose_device",
    "measure_latencies",
    "option",
    "options_of",
    "prune_job",
    "resolve",
    "resolve_as",
    "train_job",
    "warnings_to",
]

# What needs PyTorch is imported when it is asked for: the command line and its help are not it.
_HOMES = {
    "._directory": "check_command",
    "._measure": "measure_latencies",
    "._prepare": "check_logits choose_device",
    "._prune_job": "prune_job",
    "._train_job": "train_job",
}
__getattr__, __dir__ = lazily(__name__, __all__, _HOMES)
