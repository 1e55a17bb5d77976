"""What a criterion may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, FloatArray

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
