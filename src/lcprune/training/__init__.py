"""Training and fine-tuning, with and without a teacher."""

from lcprune.training._choose_precision import TrainingPrecision, choose_training_precision
from lcprune.training._config import Dtype, Schedule, TrainingConfig
from lcprune.training._evaluate import check_logits, evaluate_top1, evaluation_batch
from lcprune.training._finetune import finetune
from lcprune.training._loss import distillation_loss
from lcprune.training._processes import ElsewhereError, alike, is_main, on_main, process_count
from lcprune.training._range_test import LearningRateRange, find_learning_rate
from lcprune.training._report import EpochReport, TrainingResult
from lcprune.training._try_plans import try_plans

__all__ = [
    "Dtype",
    "ElsewhereError",
    "EpochReport",
    "LearningRateRange",
    "Schedule",
    "TrainingConfig",
    "TrainingPrecision",
    "TrainingResult",
    "alike",
    "check_logits",
    "choose_training_precision",
    "distillation_loss",
    "evaluate_top1",
    "evaluation_batch",
    "find_learning_rate",
    "finetune",
    "is_main",
    "on_main",
    "process_count",
    "try_plans",
]
