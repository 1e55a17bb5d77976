"""Slimming: a plan becomes a smaller, ordinary module, and is verified."""

from lcprune.slimming._copy import copied
from lcprune.slimming._fit import check_fit, named_state
from lcprune.slimming._original import masked_outputs, plain_outputs, relative_difference
from lcprune.slimming._repair import repair
from lcprune.slimming._slim import slim
from lcprune.slimming._verify import VISIBLE, Difference, difference, effect, verify

__all__ = [
    "VISIBLE",
    "Difference",
    "check_fit",
    "copied",
    "difference",
    "effect",
    "masked_outputs",
    "named_state",
    "plain_outputs",
    "relative_difference",
    "repair",
    "slim",
    "verify",
]
