"""Runs of ``prune`` and ``train``: options, the stages, and what is kept between processes."""

from lcprune.runs._measure import measure_latencies
from lcprune.runs._options import Options, PruneOptions, TrainOptions, resolve
from lcprune.runs._prepare import check_logits, choose_device
from lcprune.runs._directory import check_command
from lcprune.runs._prune_job import prune_job
from lcprune.runs._reporter import Advance, Reporter, Silent, warnings_to
from lcprune.runs._resolve import resolve_as
from lcprune.runs._train_job import train_job

__all__ = [
    "Advance",
    "Options",
    "PruneOptions",
    "Reporter",
    "Silent",
    "TrainOptions",
    "check_command",
    "check_logits",
    "choose_device",
    "measure_latencies",
    "prune_job",
    "resolve",
    "resolve_as",
    "train_job",
    "warnings_to",
]
