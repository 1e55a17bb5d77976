"""What a comparison with the masked original needs: random values, random plans, the reference."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lcprune.graph import BoolArray, ChannelGraph
from lcprune.slimming._verify import masked_outputs, plain_outputs, relative_difference

__all__ = ["masked_outputs", "plain_outputs", "random_keep", "randomise", "relative_difference"]


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Give every parameter and buffer random values, so that no fault can hide behind a zero.

    Residual scales often start at 0 and shifts at 0; here scales and variances lie in 0.5–1.5,
    and weights have the size that keeps activations near 1.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if not tensor.is_floating_point():
                continue
            if tensor.dim() > 1:
                fan_in = max(1, tensor[0].numel())
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5)
            else:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            # Shifts have both signs, or a deep network of rectifiers would go silent.
            if tensor.dim() == 1 and name.endswith(("bias", "running_mean")):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model.eval()


def random_keep(graph: ChannelGraph, rng: np.random.Generator) -> BoolArray:
    """A random mask over the prunable groups that leaves at least one of every family."""
    keep = np.ones(graph.prunable, dtype=bool)
    for family in graph.families:
        groups = np.array(family.groups)
        keep[groups] = rng.random(len(groups)) < rng.uniform(0.2, 0.9)
        keep[rng.choice(groups)] = True
    return keep
