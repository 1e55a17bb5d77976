"""Criteria by name."""

from __future__ import annotations

from lcprune.criteria._bn_scale import bn_scale
from lcprune.criteria._l1 import l1
from lcprune.criteria._l2 import l2
from lcprune.criteria._l2_squared import l2_squared
from lcprune.criteria._random import random
from lcprune.criteria._request import Criterion
from lcprune.criteria._taylor import taylor

CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "l2_squared": l2_squared,
    "taylor": taylor,
    "bn_scale": bn_scale,
    "random": random,
}
"""Every criterion by name; add to it to register another."""
