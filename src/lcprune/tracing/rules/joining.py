"""Values side by side: concatenation, stacking and padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune._checks import integer
from lcprune.graph import FIXED
from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes, along, varying
from lcprune.tracing._rule import rule
from lcprune.tracing._sizes import AttributeValue, expression_of
from lcprune.tracing.rules.shaping import apart

aten = torch.ops.aten


@rule("cat", "stack")
def concatenate(call: Call) -> Any:
    """Labels one after the other along the dimension, joined over all others."""
    tensors = [t for t in call.args[0] if t.numel()]
    out = call.run()
    if not tensors:
        return out
    dim = call.argument(1, "dim", 0) % out.dim()
    if call.func.overloadpacket is aten.stack:
        operands = [
            (t.unsqueeze(dim).shape, tuple(p.unsqueeze(dim) for p in call.planes(t)))
            for t in tensors
        ]
    else:
        operands = [(t.shape, call.planes(t)) for t in tensors]
    call.set(out, _concatenated(call, operands, dim, out.dim()))
    return out


def _concatenated(
    call: Call, operands: list[tuple[torch.Size, Planes]], dim: int, dims: int
) -> Planes:
    reason = f"a fixed size at {call.where}"
    shapes = [tuple(1 if d == dim else s for d, s in enumerate(shape)) for shape, _ in operands]
    target = tuple(max(shape[d] for shape in shapes) for d in range(dims))
    others = [tuple(p for p in planes if dim not in varying(p)) for _, planes in operands]
    merged = call.merge(list(zip(shapes, others, strict=True)), target, reason)
    if all(along(planes, dim) is None for _, planes in operands):
        return merged
    return apart(call, [*_laid_out(call, operands, dim), *merged])


def _laid_out(
    call: Call, operands: list[tuple[torch.Size, Planes]], dim: int
) -> tuple[Tensor, ...]:
    """The planes that vary along ``dim``, one behind the other."""
    pieces = []
    for shape, planes in operands:
        plane = along(planes, dim)
        if plane is None:
            plane = torch.full((1,) * len(shape), FIXED, device="cpu")
        size = list(plane.shape)
        size[dim] = shape[dim]
        pieces.append(plane.expand(size))
    sizes = [max(p.shape[d] for p in pieces) for d in range(pieces[0].dim())]
    full = torch.cat(
        [p.expand([p.shape[d] if d == dim else s for d, s in enumerate(sizes)]) for p in pieces],
        dim,
    )
    return call.compacted([full])


class ChannelPad(nn.Module):
    """Adds ``before`` and ``after`` channels of zeros around those of the input.

    A plain ``functional.pad`` keeps its sizes in code, where slimming can't reach them; the
    channels that meet such a constant are left alone. Here they are attributes, so every
    channel around a zero-padded shortcut (option A of He et al., 2015) can be pruned.

    Input (N, C, …), output (N, before + C + after, …).
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before = integer("before", before, 0)
        self.after = integer("after", after, 0)

    def forward(self, input: Tensor) -> Tensor:
        spatial = [0, 0] * (input.dim() - 2)
        return functional.pad(input, [*spatial, self.before, self.after])

    def extra_repr(self) -> str:
        return f"before={self.before}, after={self.after}"


@rule("constant_pad_nd")
def pad(call: Call) -> Any:
    """Constants around the values; around channels they can go where code keeps their number.

    That is an attribute (as of a ``ChannelPad``), or is computed of shapes; a literal can't follow.
    """
    out = call.run()
    source, amounts = call.args[0], [int(n) for n in call.args[1]]
    asked = call.asked.amounts
    given = asked if [int(n) for n in asked] == amounts else tuple(amounts)
    planes = []
    for plane in call.planes(source):
        pieces = plane
        for i in range(len(amounts) // 2):
            dim = source.dim() - 1 - i
            before, after = amounts[2 * i], amounts[2 * i + 1]
            if plane.shape[dim] == 1 or (before == 0 and after == 0):
                continue
            if before < 0 or after < 0:
                call.pin(plane, f"cut by an amount fixed in code, {call.where}")
                start, end = max(0, -before), pieces.shape[dim] - max(0, -after)
                pieces = pieces.narrow(dim, start, end - start)
            first, last = (_added(call, given[2 * i + end]) for end in (0, 1))
            pieces = torch.cat([_end(first, plane, dim), pieces, _end(last, plane, dim)], dim)
        planes.append(pieces)
    call.set(out, call.compacted(planes))
    return out


def _added(call: Call, amount: int) -> Tensor:
    """The labels of as many constants as code asks for."""
    count, pads = max(0, int(amount)), call.flow.pads
    size = expression_of(amount)
    if not count:
        return torch.full((0,), FIXED, device="cpu")
    if isinstance(size, AttributeValue):
        # The same whenever it runs, and wherever the code reads this attribute.
        key = f"{size.module}.{size.name}.{size.index}"
        if key not in pads:
            pads[key] = call.fresh(count)
        if not (isinstance(call.module, ChannelPad) and call.size_attribute(size.name, pads[key])):
            call.require(pads[key], size)
        return pads[key]
    labels = call.fresh(count)
    if not isinstance(size, int):
        call.require(labels, size)
        return labels
    pads[f"fixed {labels[0]}"] = labels
    call.pin(
        labels,
        f"channels of constants whose number is fixed in code at {call.where}: "
        "lcprune.ChannelPad has it as an attribute",
    )
    return labels


def fixed_pads(call: Call, plane: Tensor) -> Tensor:
    """The plane with ``FIXED`` where code adds a fixed number of constants."""
    for key, labels in call.flow.pads.items():
        if key.startswith("fixed "):
            plane = torch.where(torch.isin(plane, labels), FIXED, plane)
    return plane


def _end(labels: Tensor, plane: Tensor, dim: int) -> Tensor:
    shape = [1] * plane.dim()
    shape[dim] = labels.numel()
    size = list(plane.shape)
    size[dim] = labels.numel()
    return labels.reshape(shape).expand(size)
