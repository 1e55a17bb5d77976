"""A slimmed network as files that load without pickle."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lcprune._files import make_directory, replacing, sha256_of
from lcprune.artifact._layout import ARTIFACT, PLAN, WEIGHTS
from lcprune.artifact._versions import versions
from lcprune.errors import InputError
from lcprune.ranking import Plan

ARTIFACT_SCHEMA = 1


def save(
    small: nn.Module,
    directory: str | Path,
    *,
    plan: Plan,
    example_input: Tensor | tuple[Tensor, ...],
    factory: str | None = None,
    classes: int | None = None,
) -> None:
    """Write a slimmed model to ``directory`` so that ``load`` gives it back.

    ``factory`` names what builds the unpruned network (``cifar_resnet56``,
    ``torchvision/resnet50``, ``package.module:function``); without it ``load`` wants the model.
    ``classes`` is the number of outputs to build it with; by default that of the model's own
    output for ``example_input``, where this is a matrix (samples, classes).

    Three files: ``plan.json``, ``model.safetensors`` (tied tensors stay tied) and
    ``artifact.json`` with their hashes. Each is complete before it takes its name. Others in
    the directory are left alone. ``InputError`` where the directory can't be written or the
    model's state holds something that is not a tensor.
    """
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    for name, value in small.state_dict().items():
        if not isinstance(value, Tensor):
            raise InputError(f"{name} in the model's state is no tensor, so it can't be saved")
    if classes is None:
        classes = _count_outputs(small, inputs)
    directory = Path(directory)
    make_directory(directory)
    with ExitStack() as stack:  # left in reverse order: artifact.json takes its name last
        described = stack.enter_context(replacing(directory / ARTIFACT))
        weights = stack.enter_context(replacing(directory / WEIGHTS))
        planned = stack.enter_context(replacing(directory / PLAN))
        planned.write_text(plan.to_json(), encoding="utf-8")
        try:
            # Through bytes: the library's own files come without the user's permission mask.
            weights.write_bytes(safetensors.torch.save(_untied(small), {"format": "pt"}))
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise InputError(f"can't write {directory / WEIGHTS}: {_one_line(error)}") from error
        description = {
            "schema": ARTIFACT_SCHEMA,
            "factory": factory,
            "classes": classes,
            "inputs": [
                {"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")}
                for x in inputs
            ],
            "sha256": {PLAN: sha256_of(planned), WEIGHTS: sha256_of(weights)},
            "versions": versions(),
        }
        described.write_text(json.dumps(description, indent=1), encoding="utf-8")


def _count_outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> int | None:
    training = [module for module in model.modules() if module.training]
    try:
        with torch.no_grad():
            output = model.eval()(*inputs)
    finally:
        for module in training:
            module.training = True
    if isinstance(output, Tensor) and output.dim() == 2:
        return int(output.shape[1])
    return None


def _untied(model: nn.Module) -> dict[str, Tensor]:
    """The model's state with each tied tensor under one of its names only.

    Loading finds the other names by the ties of the model that it loads into. The ties are not
    written beside the weights: entries of a file's metadata come in no fixed order, and the
    same model shall give the same bytes.
    """
    state: dict[str, Tensor] = {}
    seen = set()
    for name, tensor in model.state_dict().items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        state[name] = tensor.contiguous()
    return state


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
