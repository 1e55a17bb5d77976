"""Running a model on its example input, never on the model itself."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lcprune.errors import ModelError

ExampleInput = Tensor | tuple[Any, ...]
LAZY = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)


def as_arguments(example_input: ExampleInput) -> tuple[Any, ...]:
    """The positional arguments that an example input stands for."""
    return example_input if isinstance(example_input, tuple) else (example_input,)


def first_sample(model: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments cut to a batch of one, where they have a batch and the model takes one."""
    sizes = {leaf.shape[0] for leaf in _tensors(arguments) if leaf.dim()}
    if len(sizes) != 1 or sizes == {1}:
        return arguments
    cut = tuple(tree_map(lambda x: x[:1] if isinstance(x, Tensor) else x, list(arguments)))
    try:
        with torch.no_grad():
            forward(model, cut)
    except ModelError:  # a sample without a batch dimension, or a batch that must be larger
        return arguments
    return cut


def twice(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments as a batch of two equal samples."""
    return tuple(
        tree_map(
            lambda x: torch.cat([x, x]) if isinstance(x, Tensor) and x.dim() else x,
            list(arguments),
        )
    )


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def private_copy(model: nn.Module) -> nn.Module:
    """A copy to run; the model itself is never touched."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("the model is a scripted module; expected an ordinary nn.Module")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(
            tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer
        ):
            raise ModelError(f"{name} is not initialised yet; run the model once on an input")
        if tensor.is_meta:
            raise ModelError(f"{name} is on the meta device; expected real tensors")
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise ModelError(
            f"the model can't be copied ({type(error).__name__}: {error}); expected a module "
            "that copy.deepcopy accepts"
        ) from error


def forward(model: nn.Module, arguments: tuple[Any, ...]) -> Any:
    """The model's output; ``ModelError`` in one line where its forward raises."""
    try:
        return model(*arguments)
    except Exception as error:
        shapes = ", ".join("x".join(map(str, t.shape)) for t in _tensors(arguments))
        text = str(error).strip().split("\n")[0]
        raise ModelError(
            f"the model's forward fails on the example input ({shapes}): "
            f"{type(error).__name__}: {text}"
        ) from error


def outputs(result: Any) -> list[Tensor]:
    """Every tensor in a model's output, in containers, mappings and dataclasses."""
    return list(_walk(result))


def _walk(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | OrderedDict):
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _walk(getattr(value, field.name))
