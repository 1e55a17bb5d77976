"""The number that a search minimises, and what must happen before it means anything."""

from lcprune.fitness._alternate import FEW, Pace, relative_times
from lcprune.fitness._choose_precision import choose_precision
from lcprune.fitness._cross_entropy import CrossEntropy
from lcprune.fitness._divisible import Divisible, first_part
from lcprune.fitness._fold import folded
from lcprune.fitness._modes import eval_mode
from lcprune.fitness._precision import Precision
from lcprune.fitness._recalibrate import recalibrate

__all__ = [
    "FEW",
    "CrossEntropy",
    "Divisible",
    "Pace",
    "Precision",
    "choose_precision",
    "eval_mode",
    "first_part",
    "folded",
    "recalibrate",
    "relative_times",
]
