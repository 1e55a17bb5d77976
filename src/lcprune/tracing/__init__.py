"""Tracing: a model and an example input become a channel graph."""

from lcprune.tracing._bake import bake
from lcprune.tracing._choice import is_within, outermost_named
from lcprune.tracing._flow import Call, LabelFlow, Returned
from lcprune.tracing._inputs import ExampleInput, Inputs, as_examples
from lcprune.tracing._paths import inputs_for_training, run_labelled
from lcprune.tracing._planes import Planes, along, from_vector, varying, vector
from lcprune.tracing._rule import rule
from lcprune.tracing._run import (
    first_sample,
    forward,
    free_among,
    is_free,
    outputs,
    private_copy,
)
from lcprune.tracing._trace import trace
from lcprune.tracing._tree import named_tensors
from lcprune.tracing.rules import apply_rule
from lcprune.tracing.rules.joining import ChannelPad
from lcprune.tracing.rules.pointwise import is_pointwise

__all__ = [
    "Call",
    "ChannelPad",
    "ExampleInput",
    "Inputs",
    "LabelFlow",
    "Planes",
    "Returned",
    "along",
    "apply_rule",
    "as_examples",
    "bake",
    "first_sample",
    "forward",
    "free_among",
    "from_vector",
    "inputs_for_training",
    "is_free",
    "is_pointwise",
    "is_within",
    "named_tensors",
    "outermost_named",
    "outputs",
    "private_copy",
    "rule",
    "run_labelled",
    "trace",
    "varying",
    "vector",
]
