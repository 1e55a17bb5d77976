"""A saved network, back from its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lcprune._files import sha256_of
from lcprune.artifact._layout import ARTIFACT, PLAN, WEIGHTS
from lcprune.artifact._save import ARTIFACT_SCHEMA
from lcprune.errors import InputError, WeightsError
from lcprune.ranking import Plan
from lcprune.slimming import slim


def load(
    directory: str | Path, model: nn.Module | None = None, *, trust_factory: bool = False
) -> nn.Module:
    """The network that ``save`` wrote, on the CPU, in eval mode.

    The unpruned network is ``model`` (left untouched), or else what the recorded factory builds:
    those of lcprune, torchvision and timm run unasked, any other runs foreign code and wants
    ``trust_factory``. The plan cuts it, and the weights must fit exactly. No tracer, no pickle.

    ``InputError`` where the directory holds no artifact, a file is not the one that was written,
    the factory is absent or not trusted; ``WeightsError`` where the weights don't fit.
    """
    directory = Path(directory)
    description = read_artifact(directory)
    plan = read_plan(directory)
    if model is None:
        model = _build(directory, description, trust_factory)
    small = slim(model, plan)
    _load_weights(small, directory / WEIGHTS)
    return small.eval()


def read_artifact(directory: Path) -> dict[str, Any]:
    """The contents of ``artifact.json``, its files' hashes checked; ``InputError`` if amiss."""
    path = directory / ARTIFACT
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema, hashes = description["schema"], dict(description["sha256"])
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{directory} holds no saved model: {ARTIFACT} is missing") from None
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the description of a saved model") from error
    if schema != ARTIFACT_SCHEMA:
        raise InputError(f"{path} is of schema {schema}, expected {ARTIFACT_SCHEMA}")
    for name in (PLAN, WEIGHTS):
        if not (directory / name).is_file():
            raise InputError(f"{directory} is not complete: {name} is missing")
        if sha256_of(directory / name) != hashes.get(name):
            raise InputError(f"{directory / name} is not the file that was saved: its hash differs")
    return description


def read_plan(directory: Path) -> Plan:
    """The plan in a directory; ``InputError`` where there is none or it can't be read."""
    path = directory / PLAN
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read {path}") from error
    try:
        return Plan.from_json(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _build(directory: Path, description: dict[str, Any], trust_factory: bool) -> nn.Module:
    from lcprune.models import build  # a later stage, needed only where no model is given

    factory = description.get("factory")
    if factory is None:
        raise InputError(f"{directory} was saved without a factory: pass the unpruned model")
    # A colon means a file or a module to import, or a download; bare names are known ones.
    if ":" in factory and not trust_factory:
        raise InputError(
            f"{directory} is built by {factory}, which runs code from outside lcprune: "
            "allow it with trust_factory=True (--trust-factory), or pass the unpruned model"
        )
    shape = description["inputs"][0]["shape"]
    if len(shape) != 4:
        raise InputError(f"{factory} can't be built for inputs of shape {shape}: pass the model")
    channels, height, width = shape[1:]
    return build(factory, classes=description["classes"], input_shape=(channels, height, width))


def _load_weights(model: nn.Module, path: Path) -> None:
    """Copy a file's tensors into the model, which must have exactly those."""
    try:
        saved = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    state = model.state_dict()
    for name, tensor in saved.items():
        if name not in state:
            raise WeightsError(f"{path} holds {name}, which the model does not have")
        if tensor.shape != state[name].shape:
            raise WeightsError(
                f"{name} in {path} is of shape {list(tensor.shape)}, "
                f"the model expects {list(state[name].shape)}"
            )
    _take_dtypes(model, saved)
    try:
        safetensors.torch.load_model(model, path, strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} does not fit the model: {' '.join(str(error).split())}"
        ) from error


def _take_dtypes(model: nn.Module, saved: dict[str, Tensor]) -> None:
    """Give every tensor the precision that it was saved in, so that loading rounds nothing."""
    for name, tensor in saved.items():
        module_name, _, leaf = name.rpartition(".")
        module = model.get_submodule(module_name)
        if leaf in module._parameters:
            parameter = module._parameters[leaf]
            assert parameter is not None
            parameter.data = parameter.data.to(tensor.dtype)
        elif leaf in module._buffers:
            buffer = module._buffers[leaf]
            assert buffer is not None
            module._buffers[leaf] = buffer.to(tensor.dtype)
