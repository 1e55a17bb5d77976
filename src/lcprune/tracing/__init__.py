"""Tracing: a model and an example input become a channel graph."""

from lcprune.tracing._bake import bake
from lcprune.tracing._channel_pad import ChannelPad
from lcprune.tracing._choice import is_within, outermost_named
from lcprune.tracing._flow import LabelFlow
from lcprune.tracing._rules import apply_rule
from lcprune.tracing._run import (
    ExampleInput,
    as_arguments,
    first_sample,
    forward,
    outputs,
    private_copy,
)
from lcprune.tracing._trace import run_labelled, trace

__all__ = [
    "ChannelPad",
    "ExampleInput",
    "LabelFlow",
    "apply_rule",
    "as_arguments",
    "bake",
    "first_sample",
    "forward",
    "is_within",
    "outermost_named",
    "outputs",
    "private_copy",
    "run_labelled",
    "trace",
]
