"""Channel graphs made by hand, so that tests of later stages need no tracer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from torch import nn

from lcprune.cost import BoundCost, LargestSum
from lcprune.graph import (
    FIXED,
    Attribute,
    Axis,
    ChannelGraph,
    Dimension,
    Family,
    IntArray,
    Op,
    Value,
)


def make_graph(
    families: Sequence[int],
    vectors: Sequence[Sequence[int]],
    ops: Sequence[Op] = (),
    parameters: Sequence[Op] = (),
    attributes: Sequence[Attribute] = (),
    pinned: int = 0,
    producers: Sequence[tuple[str, int]] | None = None,
    dimensions: Sequence[Dimension] | None = None,
) -> ChannelGraph:
    """A graph with families of the sizes given; groups are numbered family by family.

    Without ``dimensions`` vector i becomes dimension 0 of a tensor ``t{i}.weight``.
    """
    arrays = [np.array(vector, dtype=np.int64) for vector in vectors]
    if dimensions is None:
        dimensions = [Dimension(f"t{i}.weight", 0, array) for i, array in enumerate(arrays)]
    starts = [0, *itertools.accumulate(families)]
    members = [tuple(range(low, high)) for low, high in itertools.pairwise(starts)]
    return ChannelGraph(
        prunable=starts[-1],
        dimensions=tuple(dimensions),
        families=tuple(
            Family(
                i,
                f"f{i}",
                groups,
                tuple(d.key for d in dimensions if set(groups) & set(d.channels.tolist())),
            )
            for i, groups in enumerate(members)
        ),
        family_of=np.repeat(np.arange(len(families)), families),
        producers=tuple(producers if producers is not None else [d.key for d in dimensions]),
        pinned_reasons=("held by hand",) * pinned,
        vectors=tuple(arrays),
        values=tuple(parameter_value(op, arrays, i) for i, op in enumerate(parameters)),
        ops=tuple(ops),
        outputs=(),
        attributes=tuple(attributes),
        untouched=(),
        uncounted=(),
    )


def parameter_value(op: Op, vectors: Sequence[IntArray], storage: int) -> Value:
    """A parameter of ``coefficient`` times the channels of each factor."""
    channels = [Axis(len(vectors[factor]), factor) for factor in op.factors]
    axes = (Axis(op.coefficient), *channels)
    return Value("state", axes, 4, storage, op.module, parameter=True, saved=True)


@st.composite
def graphs(draw: st.DrawFn, most_groups: int = 9) -> ChannelGraph:
    """Small graphs with unequal signatures, pinned and fixed channels, and concatenations."""
    families = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    while sum(families) > most_groups:
        families.pop()
    pinned = draw(st.integers(0, 2))
    prunable = sum(families)
    vectors: list[list[int]] = []
    start = 0
    for size in families:
        groups = list(range(start, start + size))
        start += size
        for _ in range(draw(st.integers(1, 2))):
            extra = draw(st.lists(st.sampled_from(groups), max_size=3))
            vectors.append(list(draw(st.permutations(groups + extra))))
    if draw(st.booleans()):
        both = draw(st.lists(st.sampled_from(range(len(vectors))), min_size=2, max_size=2))
        vectors.append(vectors[both[0]] + vectors[both[1]])
    others = [FIXED, *range(prunable, prunable + pinned)]
    vectors = [v + draw(st.lists(st.sampled_from(others), max_size=2)) for v in vectors]
    vectors.append([FIXED] * draw(st.integers(1, 3)))

    def terms(name: str) -> list[Op]:
        factors = st.lists(st.integers(0, len(vectors) - 1), min_size=1, max_size=3)
        chosen = draw(st.lists(st.tuples(st.integers(1, 40), factors), min_size=1, max_size=5))
        return [Op("op", f"{name}{i}", c, tuple(f)) for i, (c, f) in enumerate(chosen)]

    attributes = [Attribute(f"t{i}", "size", None, i) for i in range(len(vectors))]
    return make_graph(families, vectors, terms("op"), terms("parameter"), attributes, pinned)


def chain(widths: Sequence[int], seed: int = 0) -> tuple[nn.Sequential, ChannelGraph]:
    """Convolution, BatchNorm, ReLU for each width, then pooling and a linear layer; 6x6 input.

    Every convolution but none of the linear layer's outputs is prunable, a family a layer.
    """
    from torch import manual_seed, random

    with random.fork_rng(devices=[]):
        manual_seed(seed)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise([3, *widths]):
            layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4)]
        model = nn.Sequential(*layers)

    starts = [0, *itertools.accumulate(widths)]
    vectors: list[IntArray] = [np.full(3, FIXED)]
    vectors += [np.arange(low, high) for low, high in itertools.pairwise(starts)]
    vectors.append(np.full(4, FIXED))
    dimensions, ops, parameters, attributes, producers = [], [], [], [], []
    for layer in range(len(widths)):
        conv, norm = f"{3 * layer}", f"{3 * layer + 1}"
        before, own = vectors[layer], vectors[layer + 1]
        producers.append((f"{conv}.weight", 0))
        dimensions.append(Dimension(f"{conv}.weight", 0, own))
        if layer:
            dimensions.append(Dimension(f"{conv}.weight", 1, before))
            attributes.append(Attribute(conv, "in_channels", None, layer))
        for name in ("weight", "bias", "running_mean", "running_var"):
            dimensions.append(Dimension(f"{norm}.{name}", 0, own))
        attributes.append(Attribute(conv, "out_channels", None, layer + 1))
        attributes.append(Attribute(norm, "num_features", None, layer + 1))
        ops.append(Op("conv", conv, 9 * 36, (layer, layer + 1)))
        parameters.append(Op("parameter", f"{conv}.weight", 9, (layer, layer + 1)))
        parameters.append(Op("parameter", f"{norm}.weight", 1, (layer + 1,)))
        parameters.append(Op("parameter", f"{norm}.bias", 1, (layer + 1,)))
    head, last = str(3 * len(widths) + 2), len(widths)
    dimensions.append(Dimension(f"{head}.weight", 1, vectors[last]))
    attributes.append(Attribute(head, "in_features", None, last))
    ops.append(Op("linear", head, 1, (last, last + 1)))
    parameters.append(Op("parameter", f"{head}.weight", 1, (last, last + 1)))
    parameters.append(Op("parameter", f"{head}.bias", 1, (last + 1,)))
    graph = make_graph(
        list(widths),
        [vector.tolist() for vector in vectors],
        ops,
        parameters,
        attributes,
        producers=producers,
        dimensions=dimensions,
    )
    return model, graph


@dataclass(frozen=True)
class Steps:
    """A resource that costs nothing and names the widths of each family, as a table may."""

    widths: tuple[tuple[int, ...], ...]
    name: str = "steps"
    unit: str = "steps"

    def bind(self, graph: ChannelGraph) -> BoundCost:
        return LargestSum([{}])

    def rungs(self, graph: ChannelGraph) -> list[IntArray]:
        return [np.array(own) for own in self.widths]


@st.composite
def steps(draw: st.DrawFn, sizes: Sequence[int]) -> Steps:
    """Any widths for families of the sizes given."""
    below = [draw(st.lists(st.integers(1, n), max_size=n, unique=True)) for n in sizes]
    return Steps(tuple(tuple(sorted({*some, n})) for some, n in zip(below, sizes, strict=True)))


def places(graph: ChannelGraph) -> list[set[tuple[str, int, int]]]:
    """(tensor, dimension, index) of everything in each group, the prunable ones first."""
    found: list[set[tuple[str, int, int]]] = [
        set() for _ in range(graph.prunable + len(graph.pinned_reasons))
    ]
    for dimension in graph.dimensions:
        for index, group in enumerate(dimension.channels.tolist()):
            if group != FIXED:
                found[group].add((dimension.tensor, dimension.dim, index))
    return found
