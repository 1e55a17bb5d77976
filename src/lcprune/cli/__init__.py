"""The command line, and the job behind it as a function."""

from lcprune.cli._app import main
from lcprune.cli._config import PruneConfig, resolve
from lcprune.cli._job import prune_job
from lcprune.cli._progress import OnConsole, Reporter, Silent

__all__ = ["OnConsole", "PruneConfig", "Reporter", "Silent", "main", "prune_job", "resolve"]
