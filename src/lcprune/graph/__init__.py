"""A model's channels as data, and the array types in which they come."""

from lcprune.graph._edit import couple, pin
from lcprune.graph._graph import (
    FIXED,
    Attribute,
    Axis,
    BoolArray,
    ChannelGraph,
    Dimension,
    Family,
    FloatArray,
    IntArray,
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
    "couple",
    "pin",
]
