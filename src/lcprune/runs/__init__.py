"""Runs of ``prune`` and ``train``: options, the stages, and what is kept between processes."""

from lcprune.runs._choices import Choices, cache_folder
from lcprune.runs._options import Options, PruneOptions, TrainOptions, resolve
from lcprune.runs._problem import Problem, check_logits, choose_device
from lcprune.runs._prune import prune_job
from lcprune.runs._reporter import Advance, Reporter, Silent, warnings_to
from lcprune.runs._resolve import resolve_as
from lcprune.runs._run import (
    BASE,
    BASE_CHECKPOINT,
    CHECKPOINT,
    GRAPH,
    JOURNAL,
    REPORT,
    RUN,
    SUMMARY,
    Run,
    RunRecord,
    RunState,
    check_command,
    check_run,
    read_run,
    resume_line,
    run_state,
)
from lcprune.runs._summary import (
    Cost,
    FinalistOutcome,
    Latency,
    Scores,
    Summary,
    TrainSummary,
    measure_latencies,
    read_summary,
    read_train_summary,
)
from lcprune.runs._train import train_job

__all__ = [
    "BASE",
    "BASE_CHECKPOINT",
    "CHECKPOINT",
    "GRAPH",
    "JOURNAL",
    "REPORT",
    "RUN",
    "SUMMARY",
    "Advance",
    "Choices",
    "Cost",
    "FinalistOutcome",
    "Latency",
    "Options",
    "Problem",
    "PruneOptions",
    "Reporter",
    "Run",
    "RunRecord",
    "RunState",
    "Scores",
    "Silent",
    "Summary",
    "TrainOptions",
    "TrainSummary",
    "cache_folder",
    "check_command",
    "check_logits",
    "check_run",
    "choose_device",
    "measure_latencies",
    "prune_job",
    "read_run",
    "read_summary",
    "read_train_summary",
    "resolve",
    "resolve_as",
    "resume_line",
    "run_state",
    "train_job",
    "warnings_to",
]
