"""The tensors of a model as they are stored, and back into a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lcprune._text import one_line
from lcprune.errors import InputError, WeightsError

_STATISTICS = ("running_mean", "running_var")


def saved_state(model: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What to store of a model's state, and the names of complex tensors among it.

    A tied tensor is there under the first of its names. Loading finds the others by the ties of
    the model that it loads into: they are not written beside the weights, since entries of a
    file's metadata come in no fixed order, and the same model shall give the same bytes.
    ``InputError`` where the state holds something that is not a dense tensor.
    """
    found: dict[str, Tensor] = {}
    for names in _by_tensor(model.state_dict(keep_vars=True)):
        found |= names
    return _stored(found)


def unsaved_buffers(model: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The same for buffers with ``persistent=False``, which a state does not hold."""
    state = model.state_dict(keep_vars=True)
    return _stored({n: b for n, b in model.named_buffers() if n not in state})


def check_finite(model: nn.Module, state: Mapping[str, Tensor], path: object = "") -> None:
    """Raise where a parameter or a norm's statistics are not finite, or a buffer is not a number.

    Infinity has its place in another buffer, as what a mask adds. ``InputError``, or
    ``WeightsError`` for what was read from ``path``.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in state.items():
        # A pair of real numbers stands for a complex one; the small types have no tests.
        value = tensor.float() if tensor.element_size() == 1 else tensor
        if not tensor.is_floating_point():
            continue
        finite = name in parameters or name.endswith(_STATISTICS)
        wrong = not value.isfinite().all() if finite else value.isnan().any()
        if wrong and path:
            raise WeightsError(f"{name} in {path} holds values that are not finite")
        if wrong:
            raise InputError(
                f"{name} of the model holds values that are not finite, expected a "
                "network of numbers"
            )


def serialised(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file."""
    try:
        return safetensors.torch.save(dict(tensors), {"format": "pt"})
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"the tensors can't be saved: {one_line(error)}") from error


def read_tensors(content: bytes, path: object, pairs: Iterable[str]) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file; ``WeightsError`` where they are none."""
    try:
        found = safetensors.torch.load(content)
        return {
            name: torch.view_as_complex(value) if name in pairs else value
            for name, value in found.items()
        }
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {one_line(error)}") from error


def load_state(model: nn.Module, saved: Mapping[str, Tensor], path: object) -> None:
    """Copy tensors into a model, which takes their precision and must have exactly those.

    ``WeightsError`` with the name of the first tensor that is missing, unexpected, of another
    shape, or tied in the model and not in the file, or the other way round.
    """
    state = model.state_dict(keep_vars=True)
    for name, tensor in saved.items():
        own = state.get(name)
        if not isinstance(own, Tensor):
            raise WeightsError(f"{path} holds {name}, which the model does not have")
        if tensor.shape != own.shape:
            raise WeightsError(
                f"{name} in {path} is of shape {list(tensor.shape)}, "
                f"the model expects {list(own.shape)}"
            )
        if _kind(tensor) != _kind(own):
            raise WeightsError(
                f"{name} in {path} is of type {_type(tensor)}, the model expects {_type(own)}"
            )
    _check_types(state, saved, path)
    whole = dict(saved)
    for names in _by_tensor(state):
        (first,) = names
        tied = [name for name, tensor in state.items() if tensor is names[first]]
        given = [name for name in tied if name in saved]
        if not given:
            raise WeightsError(f"{path} lacks {first}, which the model has")
        if len(given) > 1:
            raise WeightsError(
                f"{path} holds {given[0]} and {given[1]} apart, which are one tensor in the model"
            )
        whole |= dict.fromkeys(tied, saved[given[0]])
        names[first].data = names[first].data.to(saved[given[0]].dtype)
    try:
        model.load_state_dict(whole, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit the model: {one_line(error)}") from error


def load_buffers(model: nn.Module, saved: Mapping[str, Tensor], path: object) -> None:
    """Set buffers that are not part of a model's state, in any shape, also where there are none.

    Buffers that are one tensor in the model stay one.
    """
    own = dict(model.named_buffers(remove_duplicate=False))
    state = model.state_dict(keep_vars=True)
    for name, tensor in saved.items():
        module_name, _, leaf = name.rpartition(".")
        try:
            module = model.get_submodule(module_name)
            known = leaf in module._buffers
            if name in state or (not known and (hasattr(module, leaf) or not leaf.isidentifier())):
                raise AttributeError(name)
        except AttributeError as error:
            raise WeightsError(f"{path} holds {name}, which is no such buffer here") from error
        same = [key for key, buffer in own.items() if buffer is own.get(name)] or [name]
        for key in same:
            place, _, last = key.rpartition(".")
            model.get_submodule(place).register_buffer(last, tensor, persistent=False)


def _check_types(own: Mapping[str, object], saved: Mapping[str, Tensor], path: object) -> None:
    """``WeightsError`` where tensors of one module, of one type in the model, have several."""
    firsts: dict[tuple[str, torch.dtype], str] = {}
    for name, tensor in saved.items():
        before = own[name]
        if isinstance(before, Tensor) and (tensor.is_floating_point() or tensor.is_complex()):
            first = firsts.setdefault((name.rpartition(".")[0], before.dtype), name)
            if saved[first].dtype != tensor.dtype:
                raise WeightsError(
                    f"{name} in {path} is of type {_type(tensor)} and {first} beside it of type "
                    f"{_type(saved[first])}, expected one type"
                )


def _kind(tensor: Tensor) -> str:
    """What a tensor's type counts in: precision and width may differ."""
    if tensor.dtype == torch.bool:
        return "bool"
    real = "float" if tensor.is_floating_point() else "int"
    return "complex" if tensor.is_complex() else real


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _by_tensor(state: Mapping[str, object]) -> list[dict[str, Tensor]]:
    """Each tensor of a state once, under the first of its names."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name} in the model's state is no tensor, so it can't be saved")
        if is_lazy(tensor):
            raise InputError(f"{name} is not initialised yet; run the model once on an input")
        found.setdefault(id(tensor), {name: tensor})
    return list(found.values())


def _stored(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Copies on the CPU that share no memory, complex ones as pairs of real numbers."""
    stored: dict[str, Tensor] = {}
    pairs = []
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            raise InputError(f"{name} is no dense tensor with values, so it can't be saved")
        value = tensor.detach().resolve_conj().resolve_neg().cpu()
        if value.is_complex():
            pairs.append(name)
            value = torch.view_as_real(value)
        stored[name] = value.clone(memory_format=torch.contiguous_format)
    return stored, tuple(pairs)
