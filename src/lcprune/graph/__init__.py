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
from lcprune.graph._network import (
    Shapes,
    digest_of,
    network_digest,
    parameter_shapes,
    shape_entry,
)
from lcprune.graph._summary import Staying, quantity, staying, uncounted_sentence

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
    "Shapes",
    "Staying",
    "Untouched",
    "Value",
    "couple",
    "digest_of",
    "network_digest",
    "parameter_shapes",
    "pin",
    "quantity",
    "shape_entry",
    "staying",
    "uncounted_sentence",
]
