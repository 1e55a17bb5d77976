"""What a network costs when some of its channels are gone, and how much it may cost."""

from lcprune.cost._budget import RESOURCES, Budget
from lcprune.cost._model import CostModel

__all__ = ["RESOURCES", "Budget", "CostModel"]
