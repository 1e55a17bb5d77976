"""Which channels go: compensated saliencies in one global order, cut to a budget."""

from lcprune.ranking._blocks import RoundTo, Rungs
from lcprune.ranking._builder import PlanBuilder
from lcprune.ranking._compensation import (
    COMPENSATIONS,
    SCALES,
    Additive,
    Affine,
    Compensation,
    Uncompensated,
    choose_compensation,
)
from lcprune.ranking._compose import compose
from lcprune.ranking._cut import Cut
from lcprune.ranking._plan import A_PLAN, PLAN_SCHEMA, AttributeEdit, Plan
from lcprune.ranking._rank import Ranker, rank
from lcprune.ranking._widths import Widths

__all__ = [
    "A_PLAN",
    "COMPENSATIONS",
    "PLAN_SCHEMA",
    "SCALES",
    "Additive",
    "Affine",
    "AttributeEdit",
    "Compensation",
    "Cut",
    "Plan",
    "PlanBuilder",
    "Ranker",
    "RoundTo",
    "Rungs",
    "Uncompensated",
    "Widths",
    "choose_compensation",
    "compose",
    "rank",
]
