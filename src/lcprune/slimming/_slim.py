"""Cutting a plan out of a network."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.errors import InputError
from lcprune.ranking._plan import AttributeEdit, Plan
from lcprune.tracing._run import computed_state


def slim(model: nn.Module, plan: Plan) -> nn.Module:
    """A new model without the channels that ``plan`` removes; ``model`` is untouched.

    The result is an ordinary module of the same classes with smaller tensors. Tensors that are
    the same object in ``model`` are the same object in the result. Raises ``InputError`` where
    the plan names a tensor, dimension, index or attribute that the model does not have.
    """
    by_tensor: dict[str, dict[int, tuple[int, ...]]] = defaultdict(dict)
    for (name, dim), indices in plan.kept.items():
        by_tensor[name][dim] = indices
    state = dict(_named_state(model))
    for name in by_tensor:
        if name not in state:
            raise InputError(f"the plan prunes {name}, which the model does not have")
    # A deep copy that finds the small tensors already there never copies the large ones.
    memo: dict[int, Any] = computed_state(model)
    for name, tensor in state.items():
        if name in by_tensor or id(tensor) not in memo:
            memo[id(tensor)] = _cut(name, tensor, by_tensor.get(name, {}))
    small = copy.deepcopy(model, memo)
    for edit in plan.attributes:
        _edit(small, edit)
    return small


def _named_state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]


def _cut(name: str, tensor: Tensor, kept: dict[int, tuple[int, ...]]) -> Tensor:
    data = tensor.detach()
    for dim, indices in kept.items():
        if dim >= data.dim() or (indices and max(indices) >= data.shape[dim]):
            raise InputError(
                f"the plan keeps index {max(indices, default=0)} of dimension {dim} of {name}, "
                f"whose shape is {tuple(tensor.shape)}"
            )
        data = data.index_select(dim, torch.tensor(indices, device=data.device))
    data = data.contiguous() if kept else data.clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def _edit(model: nn.Module, edit: AttributeEdit) -> None:
    try:
        module = model.get_submodule(edit.module)
        old = getattr(module, edit.name)
    except AttributeError as error:
        raise InputError(
            f"the plan changes {edit.name} of {edit.module}, which the model does not have"
        ) from error
    if edit.index is None:
        setattr(module, edit.name, edit.value)
    else:
        values = list(old)
        values[edit.index] = edit.value
        setattr(module, edit.name, tuple(values))
