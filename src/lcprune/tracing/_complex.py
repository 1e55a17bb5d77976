"""Complex numbers and frequencies: channels stay where a transform does not run over them."""

from __future__ import annotations

from typing import Any

from lcprune.tracing._call import Call
from lcprune.tracing._planes import Planes, varying


def transform(call: Call) -> Any:
    """A Fourier transform over some dimensions: channels along the others stay channels."""
    source = call.args[0]
    over = {int(d) % source.dim() for d in call.args[1]}
    out = call.run()
    planes: Planes = ()
    for plane in call.flow.planes(source):
        if varying(plane) & over:
            call.flow.labels.pin(plane, f"an operation across channels, {call.where}")
        else:
            planes += (plane,)
    call.flow.set(out, planes)
    return out


def pair_as_number(call: Call) -> Any:
    """Two real numbers of the last dimension become a complex one."""
    source = call.args[0]
    out = call.run()
    planes: Planes = ()
    for plane in call.flow.planes(source):
        if plane.shape[-1] > 1:
            call.flow.labels.pin(plane, f"the parts of a number at {call.where}")
        else:
            planes += (plane.squeeze(-1),)
    call.flow.set(out, planes)
    return out


def number_as_pair(call: Call) -> Any:
    """A complex number becomes two real ones in a new last dimension."""
    out = call.run()
    planes = call.flow.planes(call.args[0])
    call.flow.set(out, tuple(plane.unsqueeze(-1) for plane in planes))
    return out
