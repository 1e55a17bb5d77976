"""What a network costs when some of its channels are gone, and how much it may cost."""

from lcprune.cost._bound import BoundCost, LargestSum, Resource
from lcprune.cost._budget import Budget
from lcprune.cost._energy import PRESETS, Energy, is_elementwise, read_energy
from lcprune.cost._fit import FittedEnergy, fit_energy
from lcprune.cost._model import CostModel, cost_of
from lcprune.cost._resources import RESOURCES

__all__ = [
    "PRESETS",
    "RESOURCES",
    "BoundCost",
    "Budget",
    "CostModel",
    "Energy",
    "FittedEnergy",
    "LargestSum",
    "Resource",
    "cost_of",
    "fit_energy",
    "is_elementwise",
    "read_energy",
]
