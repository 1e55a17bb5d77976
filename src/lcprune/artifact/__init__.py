"""A slimmed network and the run that made it, as files."""

from lcprune._files import PARTIAL, replacing, sha256_of, write_text
from lcprune.artifact._layout import (
    ARTIFACT,
    BASE,
    BASE_CHECKPOINT,
    CHECKPOINT,
    JOURNAL,
    PLAN,
    REPORT,
    RUN,
    SUMMARY,
    WEIGHTS,
)
from lcprune.artifact._load import load, read_artifact, read_plan
from lcprune.artifact._run import (
    RunRecord,
    RunState,
    begin_run,
    check_run,
    locked,
    read_run,
    resume_line,
    run_state,
    update_run,
)
from lcprune.artifact._save import save
from lcprune.artifact._summary import (
    BudgetOutcome,
    Latency,
    Summary,
    read_summary,
    write_summary,
)
from lcprune.artifact._versions import versions

__all__ = [
    "ARTIFACT",
    "BASE",
    "BASE_CHECKPOINT",
    "CHECKPOINT",
    "JOURNAL",
    "PARTIAL",
    "PLAN",
    "REPORT",
    "RUN",
    "SUMMARY",
    "WEIGHTS",
    "BudgetOutcome",
    "Latency",
    "RunRecord",
    "RunState",
    "Summary",
    "begin_run",
    "check_run",
    "load",
    "locked",
    "read_artifact",
    "read_plan",
    "read_run",
    "read_summary",
    "replacing",
    "resume_line",
    "run_state",
    "save",
    "sha256_of",
    "update_run",
    "versions",
    "write_summary",
    "write_text",
]
