"""How much a network would miss a channel: saliencies, one per group of coupled filters."""

from lcprune.criteria._coupling import REDUCTIONS, Criterion, Loss, Request
from lcprune.criteria._saliency import CRITERIA, Saliency, saliency

__all__ = [
    "CRITERIA",
    "REDUCTIONS",
    "Criterion",
    "Loss",
    "Request",
    "Saliency",
    "saliency",
]
