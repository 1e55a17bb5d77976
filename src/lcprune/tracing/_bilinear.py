"""Products of three: a bilinear layer's two inputs and its weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lcprune.tracing._call import Call
from lcprune.tracing._planes import along

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
        for plane in flow.planes(operand) if fixed else ():
            if not any(plane.shape[dim] > 1 for dim in summed):
                flow.labels.produce(plane)
    if isinstance(flow.module, nn.Bilinear):
        for dim, name in FEATURES.items():
            vector = along(flow.planes(product), dim)
            if vector is not None:
                flow.size_attribute(name, torch.reshape(vector, (-1,)))
    return out
