"""Products of three, and distances: a bilinear layer, prototypes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lcprune.tracing._call import Call
from lcprune.tracing._planes import along, varying, vector

FEATURES = {2: "in1_features", 3: "in2_features", 1: "out_features"}
"""What a bilinear layer keeps of the dimensions of its product."""


def trilinear(call: Call) -> Any:
    """Three operands of different new dimensions, multiplied and summed over ``sumdim``."""
    flow = call.flow
    operands = list(call.args[:3])
    constant = [flow.data.is_constant(operand) for operand in operands]
    summed = call.argument(6, "sumdim")
    with flow:
        for place, new in enumerate(call.args[3:6]):
            for dim in new:
                operands[place] = operands[place].unsqueeze(dim)
        product = operands[0] * operands[1] * operands[2]
        out: Tensor = product.sum(summed) if summed else product
    for operand, fixed in zip(operands, constant, strict=True):
        for filters in flow.planes(operand) if fixed else ():
            if not varying(filters) & set(summed):
                flow.labels.produce(filters)
    if isinstance(flow.module, nn.Bilinear):
        for dim, name in FEATURES.items():
            plane = along(flow.planes(product), dim)
            if plane is not None:
                flow.size_attribute(name, plane.reshape(-1))
    return out


def distances(call: Call) -> Any:
    """Distances between the rows of two matrices: features that are 0 in both add nothing."""
    left, right = call.args[:2]
    flow = call.flow
    reason = f"the features of {call.where} have a fixed size"
    vectors = []
    for operand in (left, right):
        features = None
        for plane in flow.planes(operand):
            if varying(plane) == {operand.dim() - 1}:
                features = plane
            else:
                flow.labels.pin(plane, f"rows at {call.where}")
        vectors.append(vector(features, operand.dim() - 1, operand.shape[-1]))
    flow.labels.join(vectors[0], vectors[1], reason)
    masked = [flow.masked(operand, operand.dim() - 1) for operand in (left, right)]
    out = call.run(*masked, *call.args[2:])
    flow.set(out, ())
    return out
