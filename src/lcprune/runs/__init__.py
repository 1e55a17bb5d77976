"""Runs of ``prune`` and ``train``: options, the stages, and what is kept between processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcprune._lazy import lazily
from lcprune.runs._options import (
    AUTO,
    ChoiceOptions,
    DemoOptions,
    DirectoryOptions,
    EvaluateOptions,
    ExportOptions,
    GlobalOptions,
    InspectOptions,
    MeasureOptions,
    Options,
    PruneOptions,
    RunOptions,
    TrainOptions,
)
from lcprune.runs._reporter import Advance, Reporter, Silent, warnings_to
from lcprune.runs._resolve import Concern, Option, option, options_of, read_config, resolve

if TYPE_CHECKING:
    from lcprune.runs._choices import Choices, cache_folder
    from lcprune.runs._problem import Problem, check_logits, choose_device
    from lcprune.runs._prune import prune_job
    from lcprune.runs._run import (
        BASE,
        BASE_CHECKPOINT,
        CHECKPOINT,
        EXPORTED,
        EXPORTED_INT8,
        GRAPH,
        JOURNAL,
        RUN,
        SUMMARY,
        SWEEP,
        Run,
        RunRecord,
        RunState,
        check_command,
        check_is_run,
        check_run,
        check_trust,
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
        read_summary,
        read_train_summary,
    )
    from lcprune.runs._sweep import sweep_job
    from lcprune.runs._sweep_summary import SweepPoint, SweepSummary, read_sweep
    from lcprune.runs._train import train_job

__all__ = [
    "AUTO",
    "BASE",
    "BASE_CHECKPOINT",
    "CHECKPOINT",
    "EXPORTED",
    "EXPORTED_INT8",
    "GRAPH",
    "JOURNAL",
    "RUN",
    "SUMMARY",
    "SWEEP",
    "Advance",
    "ChoiceOptions",
    "Choices",
    "Concern",
    "Cost",
    "DemoOptions",
    "DirectoryOptions",
    "EvaluateOptions",
    "ExportOptions",
    "FinalistOutcome",
    "GlobalOptions",
    "InspectOptions",
    "Latency",
    "MeasureOptions",
    "Option",
    "Options",
    "Problem",
    "PruneOptions",
    "Reporter",
    "Run",
    "RunOptions",
    "RunRecord",
    "RunState",
    "Scores",
    "Silent",
    "Summary",
    "SweepPoint",
    "SweepSummary",
    "TrainOptions",
    "TrainSummary",
    "cache_folder",
    "check_command",
    "check_is_run",
    "check_logits",
    "check_run",
    "check_trust",
    "choose_device",
    "option",
    "options_of",
    "prune_job",
    "read_config",
    "read_run",
    "read_summary",
    "read_sweep",
    "read_train_summary",
    "resolve",
    "resume_line",
    "run_state",
    "sweep_job",
    "train_job",
    "warnings_to",
]

# What needs PyTorch is imported when it is asked for: the command line and its help are not it.
_HOMES = {
    "._choices": "Choices cache_folder",
    "._problem": "Problem check_logits choose_device",
    "._prune": "prune_job",
    "._run": "BASE BASE_CHECKPOINT CHECKPOINT EXPORTED EXPORTED_INT8 GRAPH JOURNAL RUN SUMMARY "
    "SWEEP Run RunRecord RunState check_command check_is_run check_run check_trust read_run "
    "resume_line run_state",
    "._summary": "Cost FinalistOutcome Latency Scores Summary TrainSummary "
    "read_summary read_train_summary",
    "._sweep": "sweep_job",
    "._sweep_summary": "SweepPoint SweepSummary read_sweep",
    "._train": "train_job",
}
__getattr__, __dir__ = lazily(__name__, __all__, _HOMES)
