"""How much a network would miss a channel: saliencies, one criterion a file."""

from lcprune.criteria._coupling import REDUCTIONS
from lcprune.criteria._registry import CRITERIA
from lcprune.criteria._request import Criterion, Loss, Request
from lcprune.criteria._saliency import Saliency, saliency

__all__ = [
    "CRITERIA",
    "REDUCTIONS",
    "Criterion",
    "Loss",
    "Request",
    "Saliency",
    "saliency",
]
