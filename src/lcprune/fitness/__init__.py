"""The number that a search minimises, and what must happen before it means anything."""

from lcprune.fitness._cross_entropy import CrossEntropy, Divisible, first_part
from lcprune.fitness._fold import folded
from lcprune.fitness._precision import Precision, choose_precision, choose_training_precision
from lcprune.fitness._recalibrate import recalibrate
from lcprune.fitness._reconstruct import Reconstruction, Refit, reconstruct
from lcprune.fitness._running import eval_mode, seeded

__all__ = [
    "CrossEntropy",
    "Divisible",
    "Precision",
    "Reconstruction",
    "Refit",
    "choose_precision",
    "choose_training_precision",
    "eval_mode",
    "first_part",
    "folded",
    "recalibrate",
    "reconstruct",
    "seeded",
]
