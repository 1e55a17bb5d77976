"""Moving values: the label plane moves with the same call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lcprune.tracing._call import Call
from lcprune.tracing._planes import Planes, along, from_vector, varying, vector

aten = torch.ops.aten

MOVES = frozenset(
    {
        aten.permute,
        aten.transpose,
        aten.t,
        aten.unsqueeze,
        aten.squeeze,
        aten.flip,
        aten.repeat,
        aten.pixel_unshuffle,
        aten.diagonal,
    }
)
SAME = frozenset({aten.clone, aten.alias, aten.detach, aten.contiguous, aten._to_copy,
                  aten.lift_fresh, aten.lift_fresh_copy, aten.detach_, aten.requires_grad_,
                  aten._conj, aten.resolve_conj, aten.resolve_neg, aten.positive})  # fmt: skip


def same(call: Call) -> Any:
    """The same values at the same places."""
    out = call.run()
    call.flow.set(out, call.flow.planes(call.args[0]))
    return out


def move(call: Call) -> Any:
    """Labels go where their values go."""
    out = call.run()
    source = call.args[0]
    call.flow.set(out, moved(call, source))
    return out


def moved(call: Call, source: Tensor) -> Planes:
    return call.flow.compacted(
        call.run(plane.expand(source.shape), *call.args[1:]) for plane in call.flow.planes(source)
    )


def channel_shuffle(call: Call) -> Any:
    """Blocks of channels are dealt out like cards, so all lose the same places."""
    source, groups = call.args[0], int(call.args[1])
    dim = source.dim() - 3
    _tie_rows(call, source, dim, lambda labels: labels.view(groups, -1))
    return move(call)


def pixel_shuffle(call: Call) -> Any:
    """The channels that become the pixels of one channel go together."""
    source, factor = call.args[0], int(call.args[1])
    dim = source.dim() - 3
    _tie_rows(call, source, dim, lambda labels: labels.view(-1, factor * factor).t())
    out = call.run()
    plane = along(call.flow.planes(source), dim)
    labels = vector(plane, dim, source.shape[dim])
    call.flow.set(out, from_vector(labels[:: factor * factor], dim, out.dim()))
    return out


def _tie_rows(call: Call, source: Tensor, dim: int, rows: Callable[[Tensor], Tensor]) -> None:
    for plane in call.flow.planes(source):
        if varying(plane) != {dim}:
            call.flow.labels.pin(plane, f"labels that are not channels at {call.where}")
        else:
            labels = rows(plane.reshape(-1))
            call.flow.labels.join(labels, labels[:1], f"blocks at {call.where}")


def in_place(call: Call) -> Any:
    """A view in place: the same tensor with another shape."""
    source = call.args[0]
    moves = getattr(aten, call.func.overloadpacket.__name__.removesuffix("_"))
    planes = [
        moves(plane.expand(source.shape), *call.args[1:]) for plane in call.flow.planes(source)
    ]
    out = call.run()
    call.flow.set(out, call.flow.compacted(planes))
    return out


def restride(call: Call) -> Any:
    """Other strides over the same storage."""
    source = call.args[0]
    if call.func.overloadpacket is aten.as_strided_:
        planes = call.flow.planes(source)
        shape = tuple(source.shape)
        out = call.run()
        call.flow.set(out, planes if tuple(out.shape) == shape else call.flow.restride(source, out))
        return out
    out = call.run()
    call.flow.set(out, call.flow.restride(source, out))
    return out
