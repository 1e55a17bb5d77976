"""Whether a plan fits a network, told before anything of the network is touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from lcprune._checks import instance, module
from lcprune.errors import InputError, ModelError
from lcprune.graph import network_digest
from lcprune.ranking import A_PLAN, AttributeEdit, Plan

_SIZES = frozenset({
    "in_channels", "out_channels", "groups", "num_features", "num_channels", "num_groups",
    "normalized_shape", "in_features", "out_features", "in1_features", "in2_features",
    "num_parameters", "num_embeddings", "embedding_dim", "input_size", "hidden_size", "proj_size",
    "unflattened_size",
})  # fmt: skip
"""What of the constants of PyTorch's own modules counts channels; strides and the like don't."""

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def check_fit(model: nn.Module, plan: Plan, what: str = "the plan") -> None:
    """``InputError`` with the first thing that a plan asks of a model and that it does not have.

    A plan that says which network it is for (``Plan.network``) fits no other one.
    """
    module("the model", model, ModelError)
    instance(what, plan, Plan, A_PLAN)
    tensors = dict(named_state(model))
    for name, tensor in tensors.items():
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise ModelError(f"{name} is not initialised yet; run the model once on an input")
    wrong = next(_misfits(plan, model, tensors), "")
    own = network_digest(model)
    if plan.network and plan.network != own:
        if own == plan.result:
            wrong = "the model is cut by it already, expected the network before the cut"
        wrong = wrong or "the model's parameters have other names or shapes"
        raise InputError(
            f"{what} is for another network: {wrong} (plans of cuts in turn: lcprune.compose)"
        )
    if wrong:
        raise InputError(f"{what} does not fit the model: {wrong}")


def named_state(model: nn.Module) -> list[tuple[str, Tensor]]:
    """All parameters and buffers, a shared one under each of its names."""
    return [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]


def _misfits(plan: Plan, model: nn.Module, tensors: dict[str, Tensor]) -> Iterator[str]:
    cut: dict[tuple[int, int], tuple[str, tuple[int, ...]]] = {}
    for (name, dim), indices in plan.kept.items():
        tensor = tensors.get(name)
        if tensor is None:
            yield f"it prunes {name}, which the model does not have"
            continue
        if tensor.layout is not torch.strided or tensor.is_quantized:
            yield f"it prunes {name}, which is no dense tensor"
            continue
        shape = list(tensor.shape)
        if dim >= len(shape):
            yield f"it prunes dimension {dim} of {name}, whose shape is {shape}"
        elif indices[-1] >= shape[dim]:
            yield f"it keeps index {indices[-1]} of dimension {dim} of {name}, of shape {shape}"
        first, same = cut.setdefault((id(tensor), dim), (name, indices))
        if same != indices:
            yield f"it keeps other channels of {name} than of {first}, which is the same tensor"
    for edit in plan.attributes:
        expected = _expected_of(edit, model)
        if expected:
            entry = "" if edit.index is None else f"[{edit.index}]"
            module = edit.module or "the model"
            yield f"it sets {edit.name}{entry} of {module} to {edit.value}, expected {expected}"


def _expected_of(edit: AttributeEdit, model: nn.Module) -> str:
    """What was expected of an edit; nothing where it makes a size of a module smaller.

    A size is an integer, or an entry of a tuple or a list of them, that the module itself holds:
    no attribute of its class (methods, properties), none of those that every module has.
    """
    try:
        module = model.get_submodule(edit.module)
    except AttributeError:
        return "a module that the model has"
    if edit.name not in vars(module) or edit.name in _OF_EVERY_MODULE or _is_setting(edit, module):
        return "an attribute that counts channels"
    old: Any = vars(module)[edit.name]
    if edit.index is not None:
        if not isinstance(old, tuple | list):
            return "an attribute that is a tuple or a list"
        if edit.index >= len(old):
            return f"one of its {len(old)} entries"
        old = old[edit.index]
    if not isinstance(old, int | np.integer) or isinstance(old, bool):
        return "an attribute that is an integer"
    if not edit.value and edit.name in _SIZES:  # others may: channels that padding adds
        return "one at least"
    return "" if edit.value <= old else f"at most {old}, which it is"


def _is_setting(edit: AttributeEdit, module: nn.Module) -> bool:
    """Whether it is one of PyTorch's own that counts something else (a stride), or a property."""
    constants = {
        name
        for kind in type(module).__mro__
        if kind.__module__.startswith("torch.")
        for name in vars(kind).get("__constants__", ())
    }
    if isinstance(module, nn.modules.padding._ConstantPadNd):
        constants.discard("padding")  # with three dimensions of an image it adds channels
    described = any(hasattr(vars(kind).get(edit.name), "__set__") for kind in type(module).__mro__)
    return described or edit.name in constants - _SIZES
