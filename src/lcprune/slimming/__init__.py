"""Slimming: a plan becomes a smaller, ordinary module, and is verified."""

from lcprune.slimming._copy import copied
from lcprune.slimming._repair import repair
from lcprune.slimming._slim import slim
from lcprune.slimming._verify import (
    VISIBLE,
    difference,
    effect,
    masked_outputs,
    plain_outputs,
    relative_difference,
    verify,
)

__all__ = [
    "VISIBLE",
    "copied",
    "difference",
    "effect",
    "masked_outputs",
    "plain_outputs",
    "relative_difference",
    "repair",
    "slim",
    "verify",
]
