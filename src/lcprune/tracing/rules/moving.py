"""Moving values: the label plane moves with the same call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes, along, from_vector, varying, vector
from lcprune.tracing._rule import rule

aten = torch.ops.aten


@rule(
    "clone",
    "alias",
    "detach",
    "contiguous",
    "_to_copy",
    "lift_fresh",
    "lift_fresh_copy",
    "detach_",
    "requires_grad_",
    "_conj",
    "resolve_conj",
    "resolve_neg",
    "positive",
)
def same(call: Call) -> Any:
    """The same values at the same places."""
    out = call.run()
    call.set(out, call.planes(call.args[0]))
    return out


@rule(
    "permute",
    "transpose",
    "t",
    "unsqueeze",
    "squeeze",
    "flip",
    "repeat",
    "pixel_unshuffle",
)
def move(call: Call) -> Any:
    """Labels go where their values go."""
    out = call.run()
    source = call.args[0]
    call.set(out, moved(call, source))
    return out


@rule("diagonal")
def diagonal(call: Call) -> Any:
    """The channels of rows meet those of columns."""
    out = call.run()
    shape = tuple(out.shape)
    call.set(out, call.merge([(shape, (p,)) for p in moved(call, call.args[0])], shape))
    return out


def moved(call: Call, source: Tensor) -> Planes:
    return call.compacted(
        call.run(plane.expand(source.shape), *call.args[1:]) for plane in call.planes(source)
    )


@rule("channel_shuffle", optional=("native_channel_shuffle",))
def channel_shuffle(call: Call) -> Any:
    """Blocks of channels are dealt out like cards, so all lose the same places."""
    source, groups = call.args[0], int(call.args[1])
    dim = source.dim() - 3
    _tie_rows(call, source, dim, lambda labels: labels.view(groups, -1))
    return move(call)


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> Any:
    """The channels that become the pixels of one channel go together."""
    source, factor = call.args[0], int(call.args[1])
    dim = source.dim() - 3
    _tie_rows(call, source, dim, lambda labels: labels.view(-1, factor * factor).t())
    out = call.run()
    plane = along(call.planes(source), dim)
    labels = vector(plane, dim, source.shape[dim])
    call.set(out, from_vector(labels[:: factor * factor], dim, out.dim()))
    return out


def _tie_rows(call: Call, source: Tensor, dim: int, rows: Callable[[Tensor], Tensor]) -> None:
    for plane in call.planes(source):
        if varying(plane) != {dim}:
            call.pin(plane, f"labels that are not channels at {call.where}")
        else:
            labels = rows(plane.reshape(-1))
            call.join(labels, labels[:1], f"blocks at {call.where}")


@rule("squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_")
def in_place(call: Call) -> Any:
    """A view in place: the same tensor with another shape."""
    source = call.args[0]
    moves = getattr(aten, call.func.overloadpacket.__name__.removesuffix("_"))
    planes = [moves(plane.expand(source.shape), *call.args[1:]) for plane in call.planes(source)]
    out = call.run()
    call.set(out, call.compacted(planes))
    return out


@rule("as_strided", "as_strided_")
def restride(call: Call) -> Any:
    """Other strides over the same storage."""
    source = call.args[0]
    if call.func.overloadpacket is aten.as_strided_:
        planes = call.planes(source)
        shape = tuple(source.shape)
        out = call.run()
        call.set(
            out, planes if tuple(out.shape) == shape else call.flow.planes.restride(source, out)
        )
        return out
    out = call.run()
    call.set(out, call.flow.planes.restride(source, out))
    return out


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
def transform(call: Call) -> Any:
    """A Fourier transform over some dimensions: channels along the others stay channels."""
    source = call.args[0]
    over = {int(d) % source.dim() for d in call.args[1]}
    out = call.run()
    planes: Planes = ()
    for plane in call.planes(source):
        if varying(plane) & over:
            call.pin(plane, f"an operation across channels, {call.where}")
        else:
            planes += (plane,)
    call.set(out, planes)
    return out


@rule("view_as_complex")
def pair_as_number(call: Call) -> Any:
    """Two real numbers of the last dimension become a complex one."""
    source = call.args[0]
    out = call.run()
    planes: Planes = ()
    for plane in call.planes(source):
        if plane.shape[-1] > 1:
            call.pin(plane, f"the parts of a number at {call.where}")
        else:
            planes += (plane.squeeze(-1),)
    call.set(out, planes)
    return out


@rule("view_as_real")
def number_as_pair(call: Call) -> Any:
    """A complex number becomes two real ones in a new last dimension."""
    out = call.run()
    planes = call.planes(call.args[0])
    call.set(out, tuple(plane.unsqueeze(-1) for plane in planes))
    return out
