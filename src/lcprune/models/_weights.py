"""Weights from a file or from a model's publisher, checked before they are used."""

from __future__ import annotations

import hashlib
import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lcprune._checks import path as checked_path
from lcprune._factory import one_line
from lcprune.errors import WeightsError
from lcprune.models._zoo import AUXILIARY, OWN


def load_weights(
    model: nn.Module,
    weights: str,
    name: str,
    *,
    classes: int | None = None,
    new_head: bool = False,
) -> tuple[str, ...]:
    """Load weights into ``model``, in place, on the CPU; the names that stay as they were built.

    ``weights`` is ``random`` (the model stays as it was built), ``default`` (what the publisher
    of ``torchvision/NAME`` or ``timm/NAME`` offers; ``name`` is the model's) or a file: a
    ``.safetensors``, or what ``torch.load(weights_only=True)`` reads: a state dict or a
    dictionary with one under ``state_dict``. Only ``num_batches_tracked`` may be missing.

    With ``new_head`` the weights are those for another number than ``classes``: tensors that
    have ``classes`` rows and another number in the weights are left out, and there must be some.

    ``WeightsError``, with the model untouched, for a file that is missing or damaged, and for the
    first key that is missing or unexpected, shape that differs, or value that is not finite.
    """
    if weights == "random":
        if new_head:
            raise WeightsError("a new head goes with weights, and random ones were asked for")
        return ()
    if weights == "default":
        state = _published(model, name)
    else:
        state = _read(checked_path("weights", weights, WeightsError))
    source = f"the default weights of {name}" if weights == "default" else weights
    own = model.state_dict()
    head = _head(own, state, classes, source) if new_head else ()
    _check(own, {**state, **{key: own[key] for key in head}}, classes, source)
    model.load_state_dict({k: v for k, v in state.items() if k not in head}, strict=False)
    return head


def state_sha256(model: nn.Module) -> str:
    """A hash of the names, types, shapes and values of a model's state."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file (expected a file, 'default' or 'random')")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: expected tensors alone, which load without running code"
        ) from error
    except Exception as error:  # what is no pickle may end PyTorch's reader in any way
        raise WeightsError(f"{path}: can't be read as weights: {one_line(error, 160)}") from error
    return _state_dict(loaded, path)


def _state_dict(loaded: object, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path}: expected a state dict, got {type(loaded).__name__}")
    for key, value in loaded.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{path}: expected a tensor at {key!r}, got {type(value).__name__}")
    state = {str(key): value for key, value in loaded.items()}
    prefix = "module."  # what nn.DataParallel puts before every key
    if all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _head(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], classes: int | None, source: str
) -> tuple[str, ...]:
    """Tensors with as many rows as there are classes, and with another number in the weights."""
    found = tuple(
        key
        for key, value in state.items()
        if key in own
        and own[key].dim() >= 1
        and len(own[key]) == classes
        and value.shape[1:] == own[key].shape[1:]
        and value.shape != own[key].shape
    )
    if not found:
        raise WeightsError(f"{source}: the head has as many classes as the data: no new one needed")
    return found


def _check(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], classes: int | None, source: str
) -> None:
    for key in own:
        if key not in state and not key.endswith("num_batches_tracked"):
            raise WeightsError(f"{source}: key {key!r} is missing")
    for key in state:
        if key not in own:
            raise WeightsError(f"{source}: unexpected key {key!r}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise WeightsError(
                f"{source}: {key!r} has shape {tuple(value.shape)}, "
                f"expected {tuple(own[key].shape)}{_hint(own, state, classes)}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{source}: {key!r} holds values that are not finite")


def _hint(own: Mapping[str, Tensor], state: Mapping[str, Tensor], classes: int | None) -> str:
    """What to do where nothing but the number of classes differs."""
    try:
        head = _head(own, state, classes, "")
    except WeightsError:
        return ""
    differ = {key for key, value in state.items() if value.shape != own[key].shape}
    if differ != set(head):
        return ""
    return f": weights for {len(state[head[0]])} classes (train --new-head replaces the last layer)"


def _published(model: nn.Module, name: str) -> dict[str, Tensor]:
    try:
        if name.startswith("torchvision/"):
            models = importlib.import_module("torchvision.models")
            short = name.removeprefix("torchvision/")
            state = dict(models.get_model_weights(short).DEFAULT.get_state_dict(progress=False))
            if short in AUXILIARY:
                heads = {key for key in state if key.lower().startswith("aux")}
                state = {key: value for key, value in state.items() if key not in heads}
            return state
        if name.startswith("timm/"):
            timm = importlib.import_module("timm")
            source = timm.create_model(
                name.removeprefix("timm/"), pretrained=True, in_chans=_channels(model)
            )
            return dict(source.state_dict())
    except Exception as error:  # no network, no such file, a wrong hash: many kinds
        raise WeightsError(
            f"the default weights of {name} can't be had: "
            f"{type(error).__name__}: {one_line(error, 160)}"
        ) from error
    where = "a file" if name in OWN else "a file, or load them in the factory"
    raise WeightsError(f"{name} has no default weights: give {where}, or 'random'")


def _channels(model: nn.Module) -> int:
    """Input channels of the first convolution."""
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    return first.in_channels
