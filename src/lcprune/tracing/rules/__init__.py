"""What each operator does to channels: one file a kind of operator, registered where it stands."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._pytree import tree_leaves

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import varying
from lcprune.tracing._rule import rule_of
from lcprune.tracing.rules import (  # noqa: F401  (each registers its rules)
    contracting,
    joining,
    moving,
    normalising,
    picking,
    quantising,
    recurrent,
    reducing,
    shaping,
)
from lcprune.tracing.rules.pointwise import is_pointwise, pointwise


def apply_rule(call: Call) -> Any:
    """Run an operator and move its labels; where no rule knows it, pin what touches it."""
    rule = rule_of(call.func.overloadpacket)
    if rule is not None:
        return rule(call)
    if is_pointwise(call.func):
        return pointwise(call)
    labelled = [t for t in call.tensors() if call.planes(t)]
    if not labelled:
        return call.run()
    decomposition = decomposition_table.get(call.func)
    if decomposition is not None:
        with call.flow:
            return decomposition(*call.args, **call.kwargs)
    with call.flow:
        composed = call.func.decompose(*call.args, **call.kwargs)
    if composed is not NotImplemented:
        return composed
    out = call.run()
    for tensor in labelled:
        for plane in call.planes(tensor):
            call.pin(plane, f"no rule for {call.where}")
            # A weight that it reads has filters, which are among what stays.
            if tensor.dim() > 1 and varying(plane) == {0} and call.is_constant(tensor):
                call.produce(plane)
    call.flow.notes.uncounted[call.where] = None
    mutated = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
    for tensor in mutated:
        if call.planes(tensor):
            call.set(tensor, ())
    return out
