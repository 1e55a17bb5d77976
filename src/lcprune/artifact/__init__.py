"""A slimmed network and the run that made it, as files."""

from lcprune._files import PARTIAL, replacing, sha256_of, write_text
from lcprune.artifact._description import Description
from lcprune.artifact._layout import (
    ARTIFACT,
    BASE,
    BASE_CHECKPOINT,
    BUFFERS,
    CHECKPOINT,
    JOURNAL,
    PLAN,
    REPORT,
    RUN,
    SUMMARY,
    WEIGHTS,
)
from lcprune.artifact._load import load, read_plan
from lcprune.artifact._lock import locked
from lcprune.artifact._record import RunRecord, read_run, update_run
from lcprune.artifact._run import (
    RunState,
    begin_run,
    check_run,
    resume_line,
    run_state,
)
from lcprune.artifact._save import save
from lcprune.artifact._summary import (
    BudgetOutcome,
    FinalistOutcome,
    Latency,
    Summary,
    read_summary,
    write_summary,
)
from lcprune.artifact._train_summary import (
    TrainSummary,
    read_train_summary,
    write_train_summary,
)
from lcprune.artifact._versions import versions

__all__ = [
    "ARTIFACT",
    "BASE",
    "BASE_CHECKPOINT",
    "BUFFERS",
    "CHECKPOINT",
    "JOURNAL",
    "PARTIAL",
    "PLAN",
    "REPORT",
    "RUN",
    "SUMMARY",
    "WEIGHTS",
    "BudgetOutcome",
    "Description",
    "FinalistOutcome",
    "Latency",
    "RunRecord",
    "RunState",
    "Summary",
    "TrainSummary",
    "begin_run",
    "check_run",
    "load",
    "locked",
    "read_plan",
    "read_run",
    "read_summary",
    "read_train_summary",
    "replacing",
    "resume_line",
    "run_state",
    "save",
    "sha256_of",
    "update_run",
    "versions",
    "write_summary",
    "write_text",
    "write_train_summary",
]
