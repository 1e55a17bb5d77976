"""The command line, and the jobs behind it as functions."""

from lcprune.cli._app import main
from lcprune.cli._config import PruneConfig, TrainConfig, resolve
from lcprune.cli._job import prune_job
from lcprune.cli._progress import OnConsole, Reporter, Silent
from lcprune.cli._resolve import resolve_as
from lcprune.cli._train_job import train_job

__all__ = [
    "OnConsole",
    "PruneConfig",
    "Reporter",
    "Silent",
    "TrainConfig",
    "main",
    "prune_job",
    "resolve",
    "resolve_as",
    "train_job",
]
