"""What a criterion may look at, and how scores of filters become those of coupled groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
from torch import Tensor, nn

from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, FloatArray, IntArray

REDUCTIONS = ("sum", "mean", "max")
"""How the filters of a group make one score."""

Loss = Callable[[Any, Any], Tensor]
"""Outputs and targets of a batch to a scalar."""


@dataclass(frozen=True)
class Request:
    """A model, its channels, and what came with the call of ``saliency``.

    ``data`` yields batches (inputs, targets); ``loss`` and ``data`` are only for criteria that
    look at images.
    """

    model: nn.Module
    graph: ChannelGraph
    reduction: str
    data: Iterable[tuple[Any, Any]] | None
    loss: Loss | None
    seed: int

    def tensor(self, name: str) -> Tensor:
        """The parameter or buffer of that name; ``InputError`` where the model has none."""
        path, _, leaf = name.rpartition(".")
        try:
            value = getattr(self.model.get_submodule(path), leaf)
        except AttributeError:
            value = None
        if not isinstance(value, Tensor):
            raise InputError(f"the model has no tensor {name}, expected the model that was traced")
        return value


class Criterion(Protocol):
    """Scores every prunable group: float64 [prunable], higher is kept longer."""

    def __call__(self, request: Request) -> FloatArray: ...


def over_filters(
    request: Request, score: Callable[[tuple[str, int], FloatArray], FloatArray]
) -> FloatArray:
    """Score every filter and reduce over those that are coupled, float64 [prunable].

    ``score`` is given (tensor name, dimension of the filters) and the filters as rows, float64
    [filters, weights], and returns a number for each row.
    """
    graph = request.graph
    scores = (
        (graph.dimension(*key).channels, score(key, rows(request.tensor(key[0]), key[1])))
        for key in graph.producers
    )
    return coupled(graph, scores, request.reduction, "filter")


def rows(tensor: Tensor, dim: int) -> FloatArray:
    """Everything at each index of a dimension, float64 [size of the dimension, rest]."""
    moved = tensor.detach().to("cpu").double().movedim(dim, 0)
    matrix: FloatArray = moved.reshape(moved.shape[0], -1).numpy()
    return matrix


def coupled(
    graph: ChannelGraph,
    scores: Iterable[tuple[IntArray, FloatArray]],
    reduction: str,
    what: str,
) -> FloatArray:
    """Reduce (group of each channel, score of each channel) to a score per prunable group.

    Raises ``InputError`` that names the family where a group has no score at all, and one that
    names the family where a score is not finite.
    """
    pairs = list(scores)
    for groups, values in pairs:
        if len(groups) != len(values):
            raise InputError(
                f"the graph is of another network than the model: a layer has {len(values)} "
                f"{what}s and {len(groups)} in the graph"
            )
    groups = np.concatenate([pair[0] for pair in pairs]) if pairs else np.empty(0, np.int64)
    values = np.concatenate([pair[1] for pair in pairs]) if pairs else np.empty(0)
    free = (groups >= 0) & (groups < graph.prunable)
    groups, values = groups[free], values[free]
    counts = np.bincount(groups, minlength=graph.prunable)
    missing = np.flatnonzero(counts == 0)
    if missing.size:
        _refuse(graph, int(missing[0]), f"has no {what} that this criterion could score")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        value = values[bad[0]]
        why = "its weights, or their gradients, hold NaN or inf"
        _refuse(graph, int(groups[bad[0]]), f"has a score of {value}: {why}")
    if reduction == "max":
        highest = np.full(graph.prunable, -np.inf)
        np.maximum.at(highest, groups, values)
        return highest
    total: FloatArray = np.bincount(groups, values, graph.prunable).astype(np.float64)
    return total / counts if reduction == "mean" else total


def _refuse(graph: ChannelGraph, group: int, why: str) -> NoReturn:
    family = graph.families[int(graph.family_of[group])].name
    raise InputError(f"a channel of {family} {why}, expected a finite score for every channel")
