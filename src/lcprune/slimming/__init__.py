"""Slimming: a plan becomes a smaller, ordinary module, and is verified."""

from lcprune.slimming._copy import ATOMS, copied
from lcprune.slimming._repair import repair
from lcprune.slimming._slim import slim
from lcprune.slimming._verify import VISIBLE, difference, effect, verify

__all__ = ["ATOMS", "VISIBLE", "copied", "difference", "effect", "repair", "slim", "verify"]
