"""A slimmed network as files that load without pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from lcprune._files import make_directory, replacing, sha256_of, sync, write_text
from lcprune.artifact._description import (
    ARTIFACT,
    BUFFERS,
    NEW,
    PLAN,
    WEIGHTS,
    Description,
    InputSpec,
    read_description,
)
from lcprune.artifact._tensors import saved_state, serialised, unsaved_buffers
from lcprune.errors import InputError, RunError
from lcprune.graph import network_digest
from lcprune.ranking import Plan
from lcprune.slimming import named_state
from lcprune.tracing import Inputs, forward, private_copy


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

    Files: ``plan.json``, ``model.safetensors`` (the model's state, tied tensors once),
    ``buffers.safetensors`` where the model has buffers that are not part of its state, and
    ``artifact.json`` with their hashes. An earlier model is replaced at one moment: a process that
    is killed leaves the old one or the new one. Other files in the directory are left alone. The
    model may be on any device and stays there. ``InputError`` where the directory can't be
    written, the plan is not that of the model, or its state holds something that is not a dense
    tensor.
    """
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    for value in inputs:
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise InputError(f"the example input is a {kind}, expected a tensor or a tuple of them")
    if not (factory is None or isinstance(factory, str)):
        kind = type(factory).__name__
        raise InputError(f"the factory is a {kind}, expected its name, such as 'package.module:fn'")
    if not (classes is None or (type(classes) is int and classes > 0)):
        raise InputError(f"{classes!r} classes, expected a positive number or none")
    directory = Path(directory)
    _check_plan(small, plan)
    state, pairs = saved_state(small)
    buffers, buffer_pairs = unsaved_buffers(small)
    if classes is None:
        classes = _count_outputs(small, inputs)
    contents = {PLAN: plan.to_json().encode(), WEIGHTS: serialised(state)}
    if buffers:
        contents[BUFFERS] = serialised(buffers)
    description = Description(
        factory=factory,
        classes=classes,
        inputs=tuple(
            InputSpec(tuple(x.shape), str(x.dtype).removeprefix("torch.")) for x in inputs
        ),
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        complex=(*pairs, *buffer_pairs),
    )
    make_directory(directory)
    _replace(directory, contents, description.to_json())


def _replace(directory: Path, contents: Mapping[str, bytes], description: str) -> None:
    """Write the files of a network so that at every moment the old one or the new one loads.

    All are on disk under other names before ``artifact.json`` names them, which is the moment at
    which the new network is there; then they take their own names, and loading finds them under
    either.
    """
    for name in (*contents, BUFFERS):
        if (directory / name).is_dir():
            raise RunError(f"can't write {directory / name}: it is a directory")
    _settle(directory)
    try:
        for name, content in contents.items():
            with replacing(directory / f"{name}{NEW}") as temporary:
                # Through bytes: the library's own files come without the user's permission mask.
                temporary.write_bytes(content)
        write_text(directory / ARTIFACT, description)
    except BaseException:
        if not _is_written(directory / ARTIFACT, description):
            for name in contents:
                with suppress(OSError):
                    (directory / f"{name}{NEW}").unlink(missing_ok=True)
        raise
    try:
        for name in contents:
            (directory / f"{name}{NEW}").replace(directory / name)
        if BUFFERS not in contents:
            (directory / BUFFERS).unlink(missing_ok=True)
        sync(directory)
    except OSError as error:
        raise RunError(f"can't write {directory}: {error.strerror or error}") from error


def _settle(directory: Path) -> None:
    """Give the files of a network their names where a process was killed before it could."""
    with suppress(InputError, OSError):
        for name, sha256 in read_description(directory).sha256.items():
            new = directory / f"{name}{NEW}"
            if new.is_file() and sha256_of(new) == sha256:
                new.replace(directory / name)


def _is_written(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


def _check_plan(small: nn.Module, plan: Plan) -> None:
    """``InputError`` unless every pruned dimension has the size that the plan gives it."""
    tensors = dict(named_state(small))
    for (name, dim), indices in plan.kept.items():
        shape = tensors[name].shape if name in tensors else None
        if shape is None or dim >= len(shape) or shape[dim] != len(indices):
            found = "no such tensor" if shape is None else f"one of shape {list(shape)}"
            raise InputError(
                f"the plan is not that of the model: it keeps {len(indices)} of dimension {dim} "
                f"of {name}, and the model has {found}"
            )
    if plan.result and plan.result != network_digest(small):
        raise InputError(
            "the plan is not that of the model: what it leaves has other names or shapes of "
            "parameters"
        )


def _count_outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> int | None:
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    output = forward(private_copy(model).eval(), Inputs(*inputs).mapped(lambda x: x.to(device)))
    if isinstance(output, Tensor) and output.dim() == 2:
        return int(output.shape[1])
    return None
