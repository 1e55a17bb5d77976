"""What can be pruned in a model, what it costs, and what can't be pruned and why.

What the filters of a module are coupled with is shown as a tree.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from rich.text import Text
from rich.tree import Tree
from torch import Tensor, nn

from lcprune.cost import CostModel, Energy, read_energy
from lcprune.errors import InputError, LcpruneWarning
from lcprune.graph import ChannelGraph, Dimension, quantity, uncounted_sentence
from lcprune.models import build
from lcprune.runs import ChoiceOptions, InspectOptions
from lcprune.slimming import repair
from lcprune.tracing import is_within, outermost_named, trace

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


def inspect_model(options: InspectOptions) -> Iterator[Tree | str]:
    """What to print about a model with random weights.

    With ``layer``, a glob over module names, that is a tree per module of what its filters are
    coupled with. ``InputError`` where the model can't be built or run, and for a name that
    matches nothing.
    """
    energy = None if options.energy is None else read_energy(options.energy)
    network, example, graph = traced(options.model, options.input, options)
    if options.layer is not None:
        yield from layer_trees(network, graph, options.layer)
        return
    yield f"{options.model} on {'x'.join(map(str, example.shape))}"
    yield from graph.summary().split("\n")  # a line break within text is shown as an escape
    yield _memory_sentence(graph)
    if energy is not None:
        yield _energy_sentence(graph, energy)
    if graph.uncounted:
        warnings.warn(uncounted_sentence(graph), LcpruneWarning, stacklevel=2)


def traced(
    model: str, input: str | None, choice: ChoiceOptions
) -> tuple[nn.Module, Tensor, ChannelGraph]:
    """A model with random weights, an input of that shape, and its graph."""
    shape = read_shape(input, model)
    network = build(model, classes=None, input_shape=shape[1:])
    try:
        example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    except RuntimeError as error:
        raise InputError(f"input {input!r}: expected one that fits into memory") from error
    graph = trace(
        network, example, only=choice.only, skip=choice.skip, skip_types=choice.skip_types
    )
    return network, example, repair(network, graph, example)


def _memory_sentence(graph: ChannelGraph) -> str:
    """What the weights take, and what is alive beside them at once."""
    cost = CostModel(graph, ["weights", "activations"]).evaluate()
    weights, peak = (quantity(amount, "B") for amount in cost.values())
    return f"weights {weights}, peak of activations {peak} at batch 1"


def _energy_sentence(graph: ChannelGraph, energy: Energy) -> str:
    """The energy of a sample, with its coefficients and what part of it is the MACs'."""
    cost = CostModel(graph, ["macs", energy]).evaluate()
    share = energy.mac * cost["macs"] / max(cost["energy"], 1)
    return (
        f"{quantity(cost['energy'], energy.unit)} a sample at {energy.mac:g} pJ a MAC and"
        f" {energy.byte:g} pJ a byte: {share:.0%} for MACs, the rest for moving weights and"
        " activations"
    )


def layer_trees(model: nn.Module, graph: ChannelGraph, pattern: str) -> Iterator[Tree]:
    """A tree for each module with filters that ``pattern`` (a glob) or an ancestor matches.

    A matching module without filters inside, a BatchNorm, is shown by its own channels.
    ``InputError`` where nothing matches, or only what holds no channels.
    """
    tensors = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    names: dict[int, str] = {}  # of several names of one tensor the graph has the first
    for name, tensor in tensors:
        names.setdefault(id(tensor), name)
    shown = False
    for root in outermost_named(model, pattern, "layer"):
        held = {names[id(t)] for name, t in tensors if is_within(_module(name), {root})}
        inside = [d for d in graph.dimensions if d.tensor in held]
        made = [d for d in inside if d.key in graph.producers]
        for module in dict.fromkeys(_module(d.tensor) for d in made or inside):
            own = [d for d in made or inside if _module(d.tensor) == module]
            yield _tree(graph, module, own, "filters" if made else "channels")
            shown = True
    if not shown:
        raise InputError(f"layer {pattern!r} matches only modules without channels of their own")


def _tree(graph: ChannelGraph, module: str, own: list[Dimension], what: str) -> Tree:
    count = max(len(d.channels) for d in own)
    channels = np.unique(np.concatenate([d.channels for d in own]))
    tree = Tree(Text(f"{module or 'the model'}: {count} {what} ({_tensors(own)})"))
    others = [d for d in graph.dimensions if not any(d is mine for mine in own)]
    free = channels[(channels >= 0) & (channels < graph.prunable)]
    for number in np.unique(graph.family_of[free]).tolist():
        family = graph.families[number]
        branch = tree.add(Text(f"family {family.name}: {len(family.groups)} groups, all prunable"))
        keys = set(family.dimensions)
        _add_modules(branch, [d for d in others if d.key in keys])
    by_reason: dict[str, list[int]] = {}
    for group in channels[channels >= graph.prunable].tolist():
        by_reason.setdefault(graph.pinned_reasons[group - graph.prunable], []).append(group)
    for reason, groups in by_reason.items():
        branch = tree.add(Text(f"{len(groups)} groups that stay: {reason}"))
        _add_modules(branch, [d for d in others if bool(np.isin(d.channels, groups).any())])
    return tree


def _add_modules(branch: Tree, dimensions: Iterable[Dimension]) -> None:
    """A line per module: its tensors that go along, by dimension."""
    modules: dict[str, list[Dimension]] = {}
    for dimension in dimensions:
        modules.setdefault(_module(dimension.tensor), []).append(dimension)
    for module, own in modules.items():
        branch.add(Text(f"{module or 'the model'}: {_tensors(own)}"))
    if not modules:
        branch.add(Text("nothing else"))


def _tensors(dimensions: Iterable[Dimension]) -> str:
    """Names of one module's tensors, by dimension: ``weight, bias dim 0``."""
    names: dict[int, list[str]] = {}
    for dimension in dimensions:
        names.setdefault(dimension.dim, []).append(dimension.tensor.rpartition(".")[2])
    return "; ".join(f"{', '.join(names[dim])} dim {dim}" for dim in names)


def _module(tensor: str) -> str:
    return tensor.rpartition(".")[0]
