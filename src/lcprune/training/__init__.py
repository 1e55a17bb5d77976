"""Training and fine-tuning, with and without a teacher."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

from lcprune.errors import RunError
from lcprune.fitness import Precision, choose_training_precision
from lcprune.training._config import Schedule, TrainingConfig
from lcprune.training._evaluate import check_logits, evaluate_top1, evaluation_batch
from lcprune.training._hooks import TrainingHook
from lcprune.training._loop import finetune
from lcprune.training._loss import Labels, training_loss
from lcprune.training._range_test import LearningRateRange, find_learning_rate
from lcprune.training._report import EpochReport, StepProgress, TrainingResult
from lcprune.training._try_plans import try_plans

__all__ = [
    "EpochReport",
    "Labels",
    "LearningRateRange",
    "Schedule",
    "StepProgress",
    "TrainingConfig",
    "TrainingHook",
    "TrainingResult",
    "check_logits",
    "choose_training_precision",
    "evaluate_top1",
    "evaluation_batch",
    "find_learning_rate",
    "finetune",
    "training_loss",
    "try_plans",
]

# Until runs lets go of them: one process runs a run, and precisions are of one kind.
_T = TypeVar("_T")
Dtype = Literal["float32", "bfloat16"]
TrainingPrecision = Precision


class ElsewhereError(RunError):
    """Nothing raises it."""


def alike() -> AbstractContextManager[None]:
    """Nothing."""
    return nullcontext()


def is_main() -> bool:
    """Always."""
    return True


def on_main(work: Callable[[], _T]) -> _T:
    """Do it."""
    return work()


def process_count() -> int:
    """One."""
    return 1
