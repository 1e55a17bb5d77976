"""Training and fine-tuning, with and without a teacher."""

from lcprune.training._config import TrainingConfig
from lcprune.training._evaluate import check_logits, evaluate_top1
from lcprune.training._finetune import finetune
from lcprune.training._loss import distillation_loss
from lcprune.training._report import EpochReport, TrainingResult

__all__ = [
    "EpochReport",
    "TrainingConfig",
    "TrainingResult",
    "check_logits",
    "distillation_loss",
    "evaluate_top1",
    "finetune",
]
