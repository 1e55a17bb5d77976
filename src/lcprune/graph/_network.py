"""Which network a graph or a plan is for: a digest of the names and shapes of its parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lcprune.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of a network's parameters, in their order; a shared one under its first name."""


def parameter_shapes(model: nn.Module) -> Shapes:
    """The names and shapes of a model's parameters; ``ModelError`` where one has none yet."""
    found = []
    for name, tensor in model.named_parameters():
        try:
            found.append((name, tuple(tensor.shape)))
        except RuntimeError:  # of a lazy module; PyTorch is not imported here to ask
            raise ModelError(
                f"{name} is not initialised yet; run the model once on an input"
            ) from None
    return tuple(found)


def network_digest(network: nn.Module | Shapes) -> str:
    """A hash of the names and shapes of a network's parameters; empty where it has none.

    Equal for networks that have the same tensors, whatever their values, types and devices are.
    """
    shapes = network if isinstance(network, tuple) else parameter_shapes(network)
    return digest_of([shape_entry(name, shape) for name, shape in shapes])


def shape_entry(name: str, shape: Sequence[int]) -> str:
    """What of ``network_digest`` is hashed for a parameter."""
    return f"[{json.dumps(name)}, [{', '.join(map(str, shape))}]]"


def digest_of(entries: Sequence[str]) -> str:
    """The hash of the entries of a network's parameters; empty where there is none."""
    text = f"[{', '.join(entries)}]"
    return hashlib.sha256(text.encode()).hexdigest() if entries else ""
