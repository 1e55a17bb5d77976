"""A saved network, back from its files."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import cast

from torch import nn

from lcprune._checks import module
from lcprune._checks import path as checked_path
from lcprune._text import one_line
from lcprune.artifact._description import (
    ARTIFACT,
    BUFFERS,
    PLAN,
    WEIGHTS,
    Description,
    read_description,
    read_file,
    versions,
)
from lcprune.artifact._example import filled, image_shape
from lcprune.artifact._tensors import check_finite, load_buffers, load_state, read_tensors
from lcprune.errors import InputError, LcpruneWarning, ModelError
from lcprune.ranking import Plan
from lcprune.slimming import check_fit, slim
from lcprune.tracing import Inputs

_MOST_CHANNELS = 2**12
_MOST_PIXELS = 2**28
"""Of all channels: a factory may make layers of such sizes."""


def load(
    directory: str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    trust_factory: bool = False,
) -> nn.Module:
    """The network that ``save`` wrote, on the CPU, in eval mode.

    The unpruned network is ``model`` (left untouched), or else what the recorded factory builds:
    those of lcprune, torchvision and timm run unasked, any other runs foreign code and wants
    ``trust_factory``. The plan cuts it, and the weights must fit exactly. No tracer, no pickle.
    A library whose models are built warns (``UserWarning``) where its version was another one.

    ``InputError`` where the directory holds no artifact, a file is not the one that was written,
    the plan does not fit, the factory is absent or not trusted; ``WeightsError`` where the
    weights don't fit; ``ModelError`` where the factory fails.
    """
    directory = checked_path("the directory", directory)
    if model is not None:
        module("the model", model, ModelError)
    description = read_description(directory)
    # All files are read and checked before any code of a factory runs.
    contents = {name: read_file(directory, name, description) for name in description.sha256}
    plan = _parsed(contents[PLAN], directory / PLAN)
    tensors = {
        name: read_tensors(contents[name], directory / name, description.complex)
        for name in contents
        if name != PLAN
    }
    if model is None:
        _check_trust(directory, description, trust_factory)
        stored = sum(tensor.numel() for tensor in tensors[WEIGHTS].values())
        model = _build(directory, description, stored)
        _warn_of_versions(directory, description)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ModelError("the model is on the meta device, expected real tensors")
    check_fit(model, plan, str(directory / PLAN))
    small = slim(model, plan).cpu()
    check_finite(small, tensors[WEIGHTS], directory / WEIGHTS)
    load_state(small, tensors[WEIGHTS], directory / WEIGHTS)
    load_buffers(small, tensors.get(BUFFERS, {}), directory / BUFFERS)
    return small.eval()


def read_plan(directory: str | os.PathLike[str]) -> Plan:
    """The plan of the network in a directory; ``InputError`` where it can't be read."""
    directory = checked_path("the directory", directory)
    return _parsed(read_file(directory, PLAN, read_description(directory)), directory / PLAN)


def read_example(directory: str | os.PathLike[str]) -> Inputs:
    """What the network in a directory is called with: ``model(*example.args, **example.kwargs)``.

    Tensors have the shapes and types of those that the network was saved with, floats from 0 to
    1 (always the same) and zeros; all else is as it was. ``InputError`` where it can't be read.
    """
    return filled(read_description(checked_path("the directory", directory)).example)


def _parsed(content: bytes, path: Path) -> Plan:
    try:
        return Plan.from_json(content.decode("utf-8"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error


def _check_trust(directory: Path, description: Description, trust_factory: bool) -> None:
    factory = description.factory
    if factory is None:
        raise InputError(f"{directory} was saved without a factory: pass the unpruned model")
    # A colon means a file or a module to import, or a download; bare names are known ones.
    if ":" in factory and not trust_factory:
        raise InputError(
            f"{directory} is built by {factory}, which runs code from outside lcprune: "
            "allow it with trust_factory=True (--trust-factory), or pass the unpruned model"
        )


def _build(directory: Path, description: Description, stored: int) -> nn.Module:
    """What the factory builds, unless that is larger than a network of so many weights can be."""
    from lcprune.models import build  # a later stage, needed only where no model is given

    factory, path = str(description.factory), directory / ARTIFACT
    shape = _input_shape(description)
    if shape is None:
        raise InputError(
            f"{path}: {factory} is built for images, and the example holds none: pass the unpruned "
            "model"
        )
    if math.prod(shape) > _MOST_PIXELS or (len(shape) == 3 and shape[0] > _MOST_CHANNELS):
        size = "x".join(map(str, shape))
        raise InputError(f"{path}: the example is {size}, expected a size that networks have")
    if (description.classes or 0) > stored:
        raise InputError(
            f"{path}: classes is {description.classes}, expected no more than weights ({stored})"
        )
    try:
        return build(
            factory,
            classes=description.classes,
            input_shape=cast("tuple[int, int, int]", shape),
        )
    except (InputError, RuntimeError, MemoryError) as error:
        raise ModelError(f"{path}: the factory fails: {one_line(error)}") from error


def _input_shape(description: Description) -> tuple[int, ...] | None:
    """What a factory is told of its input: (C, H, W) of images; a foreign one of any tensor."""
    shape = image_shape(description.example)
    if shape is None and ":" in str(description.factory):
        first = next(iter(description.example.tensors()), None)
        return () if first is None else tuple(first.shape[1:])
    return shape


def _warn_of_versions(directory: Path, description: Description) -> None:
    """A network of another version's code may be another one with tensors of the same shapes."""
    library = str(description.factory).partition("/")[0]
    if library not in ("torchvision", "timm"):
        library = "lcprune"
    then, now = description.versions.get(library), versions().get(library)
    if then and now and then.split(".")[:2] != now.split(".")[:2]:
        warnings.warn(
            f"{directory} was saved with {library} {then} and is built by {library} {now}: "
            "check its accuracy",
            LcpruneWarning,
            stacklevel=3,
        )
