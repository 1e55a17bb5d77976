"""Weights from a file or from a model's publisher, checked before they are used."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn

from lcprune._checks import instance
from lcprune._checks import path as checked_path
from lcprune._files import open_regular
from lcprune._text import described, one_line, shown
from lcprune.errors import WeightsError
from lcprune.models._zoo import AUXILIARY, OWN

_WITHIN = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
"""Under which keys trainers save a network's tensors, beside those of an optimiser and the like."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What parallel and compiled modules and trainers put before every name."""
_WRAPPED = 3
_MOST_PACKED = 16
_COUNT = "num_batches_tracked"


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
    ``.safetensors``, or what ``torch.load(weights_only=True)`` reads: a state dict, or what
    trainers save with one under ``state_dict`` or ``model``; prefixes of every name that parallel
    or compiled modules add are left out. Only ``num_batches_tracked`` may be missing.

    With ``new_head`` the weights are those for another number than ``classes``: tensors that
    have ``classes`` rows and another number in the weights are left out, and there must be some.

    ``WeightsError``, with the model untouched, for a file that is missing, damaged or none, and
    for the first key that is missing or unexpected, shape or kind of numbers that differs, tensor
    that is not dense, or value that is not finite (unless it is a buffer's, and the model's own).
    """
    instance("weights", weights, str, "'random', 'default' or the name of a file", WeightsError)
    if weights == "random":
        if new_head:
            raise WeightsError("a new head goes with weights, and random ones were asked for")
        return ()
    source = f"the default weights of {name}" if weights == "default" else weights
    own = model.state_dict()
    if weights == "default":
        state = _published(model, name)
    else:
        state = _named(_read(checked_path("weights", weights, WeightsError)), own, source)
    for key, value in state.items():
        _check_dense(key, value, source)
    head = _head(own, state, classes, source) if new_head else ()
    parameters = {key for key, _ in model.named_parameters(remove_duplicate=False)}
    _check(own, {**state, **{key: own[key] for key in head}}, parameters, classes, source)
    try:
        model.load_state_dict({k: v for k, v in state.items() if k not in head}, strict=False)
    except (RuntimeError, TypeError) as error:
        raise WeightsError(f"{source}: do not fit the model: {one_line(error, 160)}") from error
    return head


def state_sha256(model: nn.Module) -> str:
    """A hash of the names, types, shapes and values of a model's state."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> object:
    """What a file holds, read without running code and without a word of PyTorch's beside it."""
    if not os.path.lexists(path):
        raise WeightsError(f"{path}: no such file (expected a file, 'default' or 'random')")
    try:
        with warnings.catch_warnings(), open_regular(path, WeightsError) as file:
            warnings.simplefilter("ignore")
            if path.suffix.lower() == ".safetensors":
                return safetensors.torch.load(file.read())
            _check_unpacked(file)
            return torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: expected tensors alone, which load without running code"
        ) from error
    except Exception as error:  # what is no pickle may end PyTorch's reader in any way
        why = one_line(error, 160) or "it ends too early"  # of an empty file nothing is said
        raise WeightsError(f"{path}: can't be read as weights: {why}") from error


def _check_unpacked(file: BinaryIO) -> None:
    """Raise where an archive would unpack to far more than it is: PyTorch's own don't pack."""
    if zipfile.is_zipfile(file):
        size = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MOST_PACKED * size:
            raise ValueError(f"an archive of {size} bytes that unpacks to {unpacked}")
    file.seek(0)


def _named(loaded: object, own: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors by name: found within what trainers save beside them, without what wraps add."""
    for _ in range(_WRAPPED):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[k] for k in _WITHIN if isinstance(loaded.get(k), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{source}: expected a state dict, got {shown(loaded)}")
    for key, value in loaded.items():
        if not isinstance(key, str):
            raise WeightsError(f"{source}: expected names of tensors as keys, got {shown(key)}")
        if not isinstance(value, Tensor):
            raise WeightsError(f"{source}: expected a tensor at {key!r}, got {shown(value)}")
    state = dict(loaded)
    for _ in range(_WRAPPED):
        for prefix in _PREFIXES:
            if all(k.startswith(prefix) for k in state) and not any(
                k.startswith(prefix) for k in own
            ):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _check_dense(key: str, value: Tensor, source: str) -> None:
    if value.is_nested:
        kind = "nested"
    elif value.layout is not torch.strided:
        kind = str(value.layout).removeprefix("torch.").replace("_", " ")
    elif value.is_quantized:
        kind = "quantised"
    elif value.is_meta:
        kind = "without values (on the meta device)"
    else:
        return
    raise WeightsError(f"{source}: {key!r} is {kind}, expected a dense tensor")


def _head(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], classes: int | None, source: str
) -> tuple[str, ...]:
    """Tensors with as many rows as there are classes, and with another number in the weights."""
    found = tuple(
        key
        for key, value in state.items()
        if key in own
        and own[key].dim() >= 1
        and value.dim() >= 1
        and len(own[key]) == classes
        and value.shape[1:] == own[key].shape[1:]
        and value.shape != own[key].shape
    )
    if not found:
        raise WeightsError(f"{source}: the head has as many classes as the data: no new one needed")
    return found


def _check(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    parameters: set[str],
    classes: int | None,
    source: str,
) -> None:
    for key in own:
        if key not in state and not key.endswith(_COUNT):
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
        counts = key.endswith(_COUNT) and _kind(value) == "float"  # trainers average them
        if _kind(value) != _kind(own[key]) and not counts:
            given, wanted = (str(t.dtype).removeprefix("torch.") for t in (value, own[key]))
            raise WeightsError(f"{source}: {key!r} is of type {given}, expected {wanted}")
        # A buffer may hold infinity where the network's own does, as what a mask adds.
        if not _finite(value, own[key].dtype) and (key in parameters or _finite(own[key])):
            raise WeightsError(f"{source}: {key!r} holds values that are not finite")


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    return "float" if tensor.is_floating_point() else "int"


def _finite(tensor: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether all is finite, also in the model's own type, which may reach less far."""
    if _kind(tensor) == "int":
        return True
    reaches = dtype is not None and (dtype.is_floating_point or dtype.is_complex)
    value = tensor.to(dtype) if reaches else tensor
    value = value.float() if value.element_size() == 1 else value  # those have no tests
    return bool(value.isfinite().all())


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
            f"the default weights of {name} can't be had: {described(error, 160)}"
        ) from error
    where = "a file" if name in OWN else "a file, or load them in the factory"
    raise WeightsError(f"{name} has no default weights: give {where}, or 'random'")


def _channels(model: nn.Module) -> int:
    """Input channels of the first convolution."""
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    return first.in_channels
