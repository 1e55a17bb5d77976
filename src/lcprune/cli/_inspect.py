"""What can be pruned in a model, what it costs, and what can't be pruned and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from rich.table import Table
from rich.tree import Tree

from lcprune.cli._layer import layer_trees
from lcprune.cli._table import quantity
from lcprune.cost import CostModel
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph
from lcprune.models import build
from lcprune.slimming import repair
from lcprune.tracing import trace

_SHAPES = {"digits_resnet": (1, 1, 8, 8), "cifar_": (1, 3, 32, 32)}
_IMAGENET = (1, 3, 224, 224)


def read_shape(text: str | None, model: str) -> tuple[int, int, int, int]:
    """The shape (N, C, H, W) that ``1x3x224x224`` or ``3x224x224`` stands for.

    None is what suits the model. ``InputError`` for anything else.
    """
    if text is None:
        known = (shape for prefix, shape in _SHAPES.items() if model.startswith(prefix))
        return next(known, _IMAGENET)
    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) for part in parts) or len(parts) not in (3, 4):
        raise InputError(f"input {text!r}: expected NxCxHxW or CxHxW, such as 1x3x224x224")
    sizes = [int(part) for part in parts]
    channels, height, width = sizes[-3:]
    return (sizes[0] if len(sizes) == 4 else 1, channels, height, width)


@dataclass(frozen=True)
class Choice:
    """Which modules are left out, as ``trace`` takes it."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    skip_types: tuple[str, ...] = ()


def inspect_model(
    model: str,
    shape: tuple[int, int, int, int],
    *,
    choice: Choice = Choice(),
    layer: str | None = None,
) -> Iterator[Table | Tree | str]:
    """What to print about a model with random weights on an input of ``shape``.

    With ``layer``, a glob over module names, that is a tree per module of what its filters are
    coupled with. ``InputError`` where the model can't be built or run, and for a name that
    matches nothing.
    """
    network = build(model, classes=None, input_shape=shape[1:])
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    graph = repair(network, trace(network, example, **asdict(choice)), example)
    if layer is not None:
        yield from layer_trees(network, graph, layer)
        return
    cost = CostModel(graph)
    before = cost.evaluate()
    yield (
        f"{model} on {'x'.join(map(str, shape))}: {quantity(before['macs'])} MACs (multiply-adds "
        f"of convolutions and matrix products, one sample), {quantity(before['params'])} parameters"
    )
    yield (
        f"{graph.prunable} prunable channel groups in {len(graph.families)} families; "
        "a family has one compensation"
    )
    yield _families(graph, cost, before)
    if graph.untouched:
        yield _untouched(graph)
    yield from (f"not counted: {name}" for name in graph.uncounted)
    yield from graph.notes


def _families(graph: ChannelGraph, cost: CostModel, before: dict[str, int]) -> Table:
    table = Table("family", title="Families", title_justify="left")
    for heading in ("groups", "tensors", "MACs each", "params each"):
        table.add_column(heading, justify="right")
    for family in graph.families:
        keep = np.ones(graph.prunable, dtype=np.bool_)
        keep[family.groups[0]] = False
        after = cost.evaluate(keep)
        table.add_row(
            family.name,
            str(len(family.groups)),
            str(len({tensor for tensor, _ in family.dimensions})),
            quantity(before["macs"] - after["macs"]),
            quantity(before["params"] - after["params"]),
        )
    return table


def _untouched(graph: ChannelGraph) -> Table:
    table = Table("tensor", title="Not prunable", title_justify="left")
    table.add_column("dim", justify="right")
    table.add_column("channels", justify="right")
    table.add_column("reason")
    for entry in graph.untouched:
        count = f"{entry.count} of {entry.size}"
        table.add_row(entry.tensor, str(entry.dim), count, entry.reason)
    return table
