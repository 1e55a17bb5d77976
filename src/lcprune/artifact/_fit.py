"""Whether a plan is one for a network, before anything is cut."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from torch import nn

from lcprune.errors import InputError
from lcprune.ranking import Plan


def check_fit(plan: Plan, model: nn.Module, path: Path) -> None:
    """``InputError`` with the first tensor or attribute of a plan that a model does not have."""
    tensors = dict(
        [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    )
    for (name, dim), indices in plan.kept.items():
        if name not in tensors:
            raise InputError(f"{path} prunes {name}, which the model does not have")
        shape = list(tensors[name].shape)
        if not 0 <= dim < len(shape):
            raise InputError(f"{path} prunes dimension {dim} of {name}, whose shape is {shape}")
        ascending = all(a < b for a, b in pairwise(indices))
        if not indices or not ascending or indices[0] < 0 or indices[-1] >= shape[dim]:
            raise InputError(
                f"{path} keeps indices {_ends(indices)} of dimension {dim} of {name}, "
                f"whose shape is {shape}"
            )
    for edit in plan.attributes:
        try:
            old = getattr(model.get_submodule(edit.module), edit.name)
            if edit.index is not None:
                old[edit.index]
        except (AttributeError, IndexError, TypeError) as error:
            raise InputError(
                f"{path} changes {edit.name} of {edit.module}, which the model does not have"
            ) from error


def _ends(indices: tuple[int, ...]) -> str:
    return "none" if not indices else f"{indices[0]} … {indices[-1]}"
