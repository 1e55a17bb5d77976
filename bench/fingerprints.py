"""Which indices of every tensor a foreign pruner has kept, read from the tensors themselves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Kept = dict[tuple[str, int], tuple[int, ...]]


class UnreadableError(Exception):
    """What is left of a tensor does not say where it comes from."""


def mark(model: nn.Module) -> dict[str, Tensor]:
    """Make every floating value the number of its place, and return the values that were there.

    The model is float64 afterwards, in which every place has a number of its own.
    """
    model.double()
    values = {name: tensor.detach().clone() for name, tensor in _floating(model)}
    with torch.no_grad():
        for _, tensor in _floating(model):
            numbers = torch.arange(tensor.numel(), dtype=tensor.dtype)
            tensor.copy_(numbers.reshape(tensor.shape))
    return values


def restore(pruned: nn.Module, values: Mapping[str, Tensor]) -> Kept:
    """Put the values back where their numbers stand, and say which indices are left.

    ``values`` is what ``mark`` returned before the pruning. The result holds every (tensor,
    dimension) that has lost indices. Raises ``UnreadableError`` where a tensor is new, is gone,
    holds other values than before, or is no product of indices of its dimensions.
    """
    found = list(_floating(pruned))
    names = {name for name, _ in found}
    for name in values:
        if name not in names:
            raise UnreadableError(f"{name} is gone")
    kept: Kept = {}
    places = []
    for name, tensor in found:
        if name not in values:
            raise UnreadableError(f"{name} is new")
        places.append(_places(name, tensor.detach(), values[name]))
        for dim, indices in enumerate(_indices(name, places[-1], values[name].shape)):
            if len(indices) < values[name].shape[dim]:
                kept[name, dim] = tuple(sorted(indices))
    with torch.no_grad():
        for (name, tensor), numbers in zip(found, places, strict=True):
            tensor.copy_(values[name].reshape(-1)[numbers])
    return kept


def _floating(model: nn.Module) -> list[tuple[str, Tensor]]:
    state = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return [(name, tensor) for name, tensor in state if tensor.is_floating_point()]


def _places(name: str, tensor: Tensor, whole: Tensor) -> Tensor:
    if tensor.dim() != whole.dim():
        raise UnreadableError(f"{name} has {tensor.dim()} dimensions, before {whole.dim()}")
    numbers = tensor.long()
    if not torch.equal(numbers.to(tensor), tensor):
        raise UnreadableError(f"{name} holds values that were not there")
    if tensor.numel() and not (0 <= int(numbers.min()) <= int(numbers.max()) < whole.numel()):
        raise UnreadableError(f"{name} holds values that were not there")
    return numbers


def _indices(name: str, places: Tensor, shape: torch.Size) -> list[list[int]]:
    """The indices along every dimension of the places that are left of a tensor."""
    found = []
    coordinates = torch.unravel_index(places, shape) if shape else ()
    for dim, coordinate in enumerate(coordinates):
        others = [d for d in range(len(shape)) if d != dim]
        first = coordinate
        for other in others:
            first = first.narrow(other, 0, min(1, first.shape[other]))
        if not torch.equal(first.expand_as(coordinate), coordinate):
            raise UnreadableError(f"{name} is no product of indices of its dimensions")
        found.append([int(i) for i in first.reshape(-1)])
    return found
