"""A slimmed network as files that load without pickle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lcprune._checks import instance, integer, module
from lcprune._checks import path as checked_path
from lcprune._files import (
    PARTIAL,
    make_directory,
    read_whole,
    replacing,
    sha256_of,
    sync,
    write_text,
)
from lcprune._lock import LOCK, locked
from lcprune.artifact._description import (
    ARTIFACT,
    BUFFERS,
    MOST_CLASSES,
    NEW,
    PLAN,
    WEIGHTS,
    Description,
    read_description,
)
from lcprune.artifact._example import recorded
from lcprune.artifact._tensors import check_finite, saved_state, serialised, unsaved_buffers
from lcprune.errors import InputError, ModelError, RunError
from lcprune.graph import network_digest
from lcprune.ranking import A_PLAN, Plan
from lcprune.slimming import named_state
from lcprune.tracing import ExampleInput, Inputs, as_examples, forward, outputs, private_copy

_LOCK = f"{PARTIAL}artifact{LOCK}"


def save(
    small: nn.Module,
    directory: str | os.PathLike[str],
    *,
    plan: Plan,
    example_input: ExampleInput | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    factory: str | None = None,
    classes: int | None = None,
) -> None:
    """Write a slimmed model to ``directory`` so that ``load`` gives it back.

    ``factory`` names what builds the unpruned network (``cifar_resnet56``,
    ``torchvision/resnet50``, ``package.module:function``); without it ``load`` wants the model.
    ``classes`` is the number of outputs to build it with; by default that of the model's own
    output for the example, where this is a matrix (samples, classes). ``example_input`` and
    ``example_kwargs`` are what ``trace`` takes; of several examples the first is recorded: shapes
    and types of tensors, and plain values as they are.

    Files: ``plan.json``, ``model.safetensors`` (the model's state, tied tensors once),
    ``buffers.safetensors`` where the model has buffers that are not part of its state, and
    ``artifact.json`` with their hashes. An earlier model is replaced at one moment: a process that
    is killed leaves the old one or the new one. Other files in the directory are left alone. The
    model may be on any device and stays there. ``InputError`` where the directory can't be
    written or another process writes there, the plan is not that of the model, its state holds
    something that is not a dense tensor, a parameter is not finite or a buffer of the state is
    not a number, ``factory`` is no name of a model, or the example holds what can't be recorded.
    """
    module("the model", small, ModelError)
    instance("the plan", plan, Plan, A_PLAN)
    example = as_examples(example_input, example_kwargs)[0]
    recorded(example)
    if factory is not None:
        from lcprune.models import check_name  # a later stage, needed only where one is named

        check_name(factory)
    if classes is not None:
        integer("classes", classes, 1, MOST_CLASSES)
    directory = checked_path("the directory", directory)
    _check_plan(small, plan)
    state, pairs = saved_state(small)
    check_finite(small, state)
    buffers, buffer_pairs = unsaved_buffers(small)
    if classes is None:
        classes = _count_outputs(small, example)
    contents = {PLAN: plan.to_json().encode(), WEIGHTS: serialised(state)}
    if buffers:
        contents[BUFFERS] = serialised(buffers)
    description = Description(
        factory=factory,
        classes=classes,
        example=example,
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        complex=(*pairs, *buffer_pairs),
    )
    make_directory(directory)
    with locked(directory / _LOCK, str(directory)):
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
    for name in contents:
        _move(directory / f"{name}{NEW}", directory / name)
    try:
        if BUFFERS not in contents:
            (directory / BUFFERS).unlink(missing_ok=True)
        sync(directory)
    except OSError as error:
        raise RunError(f"can't write {directory}: {error.strerror or error}") from error


def _settle(directory: Path) -> None:
    """Give the files of a network their names where a process was killed before it could.

    What can't be moved now would be written over next, and with it the only copy.
    """
    hashes: Mapping[str, str] = {}
    with suppress(InputError):  # there is no network, or none that loads
        hashes = read_description(directory).sha256
    for name, sha256 in hashes.items():
        new = directory / f"{name}{NEW}"
        if _holds(new, sha256):
            _move(new, directory / name)


def _holds(path: Path, sha256: str) -> bool:
    with suppress(InputError, OSError):
        return not path.is_symlink() and sha256_of(path) == sha256
    return False


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        raise RunError(f"can't write {target}: {error.strerror or error}") from error


def _is_written(path: Path, text: str) -> bool:
    with suppress(InputError):
        return read_whole(path) == text.encode()
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


def _count_outputs(model: nn.Module, example: Inputs) -> int | None:
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    found = outputs(forward(private_copy(model).eval(), example.mapped(lambda x: x.to(device))))
    return int(found[0].shape[1]) if len(found) == 1 and found[0].dim() == 2 else None
