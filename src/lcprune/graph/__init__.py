"""A model's channels as data, and the array types in which they come."""

from lcprune.graph._arrays import BoolArray, FloatArray, IntArray
from lcprune.graph._edit import check_prunable, couple, pin
from lcprune.graph._graph import (
    FIXED,
    Attribute,
    Axis,
    ChannelGraph,
    Dimension,
    Family,
    Op,
    Untouched,
    Value,
)

__all__ = [
    "FIXED",
    "Attribute",
    "Axis",
    "BoolArray",
    "ChannelGraph",
    "Dimension",
    "Family",
    "FloatArray",
    "IntArray",
    "Op",
    "Untouched",
    "Value",
    "check_prunable",
    "couple",
    "pin",
]
