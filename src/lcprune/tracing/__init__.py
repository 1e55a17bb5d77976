"""Tracing: a model and an example input become a channel graph."""

from lcprune.tracing._bake import bake
from lcprune.tracing._channel_pad import ChannelPad
from lcprune.tracing._graph import (
    FIXED,
    Attribute,
    ChannelGraph,
    Dimension,
    Family,
    Group,
    Op,
    Slice,
    Untouched,
)
from lcprune.tracing._trace import trace

__all__ = [
    "FIXED",
    "Attribute",
    "ChannelGraph",
    "ChannelPad",
    "Dimension",
    "Family",
    "Group",
    "Op",
    "Slice",
    "Untouched",
    "bake",
    "trace",
]
