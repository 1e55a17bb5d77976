"""What the tests of tracing and slimming share: random plans and a comparison that can see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lcprune.graph import FIXED, ChannelGraph
from lcprune.ranking import AttributeEdit, Plan
from lcprune.slimming import difference, masked_outputs, relative_difference, slim
from lcprune.testing import random_keep, randomise
from lcprune.tracing import ExampleInput, as_examples, private_copy, trace

__all__ = ["Check", "at_least_two", "check", "plan_of", "random_keep", "randomise"]


def at_least_two(graph: ChannelGraph, keep: np.ndarray) -> np.ndarray:
    """A mask that keeps two groups of every family: PyTorch has other ways for a size of 1."""
    for family in graph.families:
        keep[list(family.groups[:2])] = True
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
    seen = difference(model, small, plan, example)
    assert seen.precision == torch.float64
    double = as_examples(example)[0].mapped(lambda x: x.double() if x.is_floating_point() else x)
    exact = private_copy(model).double()
    masked = masked_outputs(exact, plan, double)
    whole = masked_outputs(exact, Plan(kept={}), double)
    return Check(error=seen.error, effect=relative_difference(whole, masked))
