"""What the tests of tracing and slimming share: random plans and a comparison that can see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from lcprune.graph import FIXED, ChannelGraph
from lcprune.ranking._plan import AttributeEdit, Plan
from lcprune.slimming import difference, slim
from lcprune.slimming._verify import masked_outputs, relative_difference
from lcprune.tracing import trace
from lcprune.tracing._run import ExampleInput, as_arguments, private_copy


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


def random_keep(graph: ChannelGraph, rng: np.random.Generator) -> np.ndarray:
    """A random mask over the prunable groups that leaves at least one of every family."""
    keep = np.ones(graph.prunable, dtype=bool)
    for family in graph.families:
        groups = np.array(family.groups)
        keep[groups] = rng.random(len(groups)) < rng.uniform(0.2, 0.9)
        keep[rng.choice(groups)] = True
    return keep


def plan_of(graph: ChannelGraph, keep: np.ndarray) -> Plan:
    """The plan that keeps ``keep``, put together apart from the package's own way."""
    alive = np.concatenate([keep, np.ones(len(graph.pinned_reasons) + 1, dtype=bool)])
    kept = {}
    for dimension in graph.dimensions:
        stays = alive[np.where(dimension.channels == FIXED, len(alive) - 1, dimension.channels)]
        if not stays.all():
            kept[dimension.key] = tuple(int(i) for i in np.flatnonzero(stays))
    edits = []
    for attribute in graph.attributes:
        vector = graph.vectors[attribute.vector]
        stays = alive[np.where(vector == FIXED, len(alive) - 1, vector)]
        if not stays.all():
            value = int(stays.sum())
            edits.append(AttributeEdit(attribute.module, attribute.name, attribute.index, value))
    return Plan(kept=kept, attributes=tuple(edits))


@dataclass(frozen=True)
class Check:
    """What a comparison of a slimmed model with its reference saw."""

    error: float
    effect: float


def check(
    model: nn.Module, example: ExampleInput, seed: int, graph: ChannelGraph | None = None
) -> Check:
    """Slim by a random plan, compare with the reference, and see whether masking had an effect."""
    graph = graph or trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(seed)))
    small = slim(model, plan)
    error, precision = difference(model, small, plan, example)
    assert precision == torch.float64
    double = tuple(
        tree_map(
            lambda x: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x,
            list(as_arguments(example)),
        )
    )
    exact = private_copy(model).double()
    masked = masked_outputs(exact, plan, double)
    whole = masked_outputs(exact, Plan(kept={}), double)
    return Check(error=error, effect=relative_difference(whole, masked))
