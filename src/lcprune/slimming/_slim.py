"""Cutting a plan out of a network."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.errors import InputError
from lcprune.ranking import AttributeEdit, Plan
from lcprune.slimming._copy import copied


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
    # A copy that finds the small tensors already there never copies the large ones.
    memo: dict[int, Any] = {}
    selections = _Selections()
    for name, tensor in state.items():
        if name in by_tensor or id(tensor) not in memo:
            memo[id(tensor)] = _cut(name, tensor, by_tensor.get(name, {}), selections)
    small = copied(model, memo)
    for edit in plan.attributes:
        _edit(small, edit)
    return small


def _named_state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]


class _Selections:
    """Indices as tensors, each made once: the tensors of a layer share the tuple in a plan."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, torch.device], tuple[Tensor, int]] = {}

    def of(self, indices: tuple[int, ...], device: torch.device) -> tuple[Tensor, int]:
        """The indices on ``device`` and the highest of them, 0 where there is none."""
        key = (id(indices), device)
        if key not in self._made:
            made = torch.tensor(indices, device=device)
            self._made[key] = made, max(indices, default=0)
        return self._made[key]


def _cut(
    name: str, tensor: Tensor, kept: dict[int, tuple[int, ...]], selections: _Selections
) -> Tensor:
    data = tensor.detach()
    for dim, indices in kept.items():
        selection, highest = selections.of(indices, data.device)
        if dim >= data.dim() or (indices and highest >= data.shape[dim]):
            raise InputError(
                f"the plan keeps index {highest} of dimension {dim} of {name}, "
                f"whose shape is {tuple(tensor.shape)}"
            )
        data = data.index_select(dim, selection)
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
