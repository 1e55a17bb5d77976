"""Cutting a plan out of a network."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from lcprune._text import described
from lcprune.errors import ModelError
from lcprune.ranking import AttributeEdit, Plan
from lcprune.slimming._copy import copied
from lcprune.slimming._fit import check_fit, named_state


def slim(model: nn.Module, plan: Plan) -> nn.Module:
    """A new model without the channels that ``plan`` removes; ``model`` is untouched.

    The result is an ordinary module of the same classes with smaller tensors. Tensors that are
    the same object in ``model`` are the same object in the result. Raises ``InputError`` where
    the plan is for another network, or asks for a tensor, dimension, index or attribute that the
    model does not have, and ``ModelError`` where the model can't be copied.
    """
    check_fit(model, plan)
    state = dict(named_state(model))
    cuts: dict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)
    for (name, dim), indices in plan.kept.items():
        cuts[id(state[name])][dim] = indices
    # A copy that finds the small tensors already there never copies the large ones.
    memo: dict[int, Any] = {}
    selections = _Selections()
    for tensor in state.values():
        if id(tensor) not in memo:
            memo[id(tensor)] = _cut(tensor, cuts.get(id(tensor), {}), selections)
    try:
        small = copied(model, memo)
    except Exception as error:  # a foreign model may raise anything while it is copied
        raise ModelError(
            f"the model can't be copied ({described(error)}); expected a "
            "module that copy.deepcopy accepts"
        ) from error
    for edit in plan.attributes:
        _edit(small, edit)
    return small


class _Selections:
    """Indices as tensors, each made once: the tensors of a layer share the tuple in a plan."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, torch.device], Tensor] = {}

    def of(self, indices: tuple[int, ...], device: torch.device) -> Tensor:
        key = (id(indices), device)
        if key not in self._made:
            self._made[key] = torch.tensor(indices, device=device)
        return self._made[key]


def _cut(tensor: Tensor, kept: dict[int, tuple[int, ...]], selections: _Selections) -> Tensor:
    data = tensor.detach()
    for dim, indices in kept.items():
        data = data.index_select(dim, selections.of(indices, data.device))
    data = data.contiguous() if kept else data.clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def _edit(model: nn.Module, edit: AttributeEdit) -> None:
    # Not by setattr, which a foreign class may have changed.
    attributes = vars(model.get_submodule(edit.module))
    if edit.index is None:
        attributes[edit.name] = edit.value
        return
    old = attributes[edit.name]
    values = list(old)
    values[edit.index] = edit.value
    # A named tuple takes its entries one by one.
    attributes[edit.name] = old._make(values) if hasattr(old, "_make") else type(old)(values)
