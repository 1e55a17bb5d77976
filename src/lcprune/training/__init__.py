"""Training and fine-tuning, with and without a teacher."""

from lcprune.fitness import choose_training_precision
from lcprune.training._config import Schedule, TrainingConfig
from lcprune.training._evaluate import check_logits, evaluate_top1, evaluation_batch
from lcprune.training._hooks import TrainingHook
from lcprune.training._loop import finetune
from lcprune.training._loss import Labels, training_loss
from lcprune.training._range_test import LearningRateRange, find_learning_rate
from lcprune.training._report import EpochReport, StepProgress, TrainingResult
from lcprune.training._try_plans import ShortTraining, try_plans

__all__ = [
    "EpochReport",
    "Labels",
    "LearningRateRange",
    "Schedule",
    "ShortTraining",
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
