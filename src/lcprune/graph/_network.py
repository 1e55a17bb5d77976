"""Which network a graph or a plan is for: a digest of the names and shapes of its parameters."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of a network's parameters, in their order; a shared one under its first name."""


def parameter_shapes(model: nn.Module) -> Shapes:
    """The names and shapes of a model's parameters."""
    return tuple((name, tuple(tensor.shape)) for name, tensor in model.named_parameters())


def network_digest(network: nn.Module | Shapes) -> str:
    """A hash of the names and shapes of a network's parameters; empty where it has none.

    Equal for networks that have the same tensors, whatever their values, types and devices are.
    """
    shapes = network if isinstance(network, tuple) else parameter_shapes(network)
    if not shapes:
        return ""
    text = json.dumps([[name, list(shape)] for name, shape in shapes])
    return hashlib.sha256(text.encode()).hexdigest()
