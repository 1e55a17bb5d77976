"""What a network costs when some of its channels are gone, and how much it may cost."""

from lcprune.cost._budget import Budget
from lcprune.cost._model import CostModel, cost_of
from lcprune.cost._resources import RESOURCES, BoundCost, LargestSum, Resource

__all__ = ["RESOURCES", "BoundCost", "Budget", "CostModel", "LargestSum", "Resource", "cost_of"]
