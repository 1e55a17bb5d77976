"""A model's channels as data, and the array types in which they come."""

from lcprune.graph._arrays import BoolArray, FloatArray, IntArray
from lcprune.graph._edit import check_prunable, couple, pin
from lcprune.graph._graph import (
    FIXED,
    Attribute,
    ChannelGraph,
    Dimension,
    Family,
    Op,
    Untouched,
)

__all__ = [
    "FIXED",
    "Attribute",
    "BoolArray",
    "ChannelGraph",
    "Dimension",
    "Family",
    "FloatArray",
    "IntArray",
    "Op",
    "Untouched",
    "check_prunable",
    "couple",
    "pin",
]
