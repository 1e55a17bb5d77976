"""A saved network, back from its files."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path

from torch import nn

from lcprune._factory import one_line
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
from lcprune.artifact._tensors import load_buffers, load_state, read_tensors
from lcprune.errors import InputError, LcpruneWarning, ModelError
from lcprune.ranking import Plan
from lcprune.slimming import slim


def load(
    directory: str | Path, model: nn.Module | None = None, *, trust_factory: bool = False
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
    directory = Path(directory)
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
        model = _build(directory, description)
        _warn_of_versions(directory, description)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ModelError("the model is on the meta device, expected real tensors")
    _check_fit(plan, model, directory / PLAN)
    small = slim(model, plan).cpu()
    load_state(small, tensors[WEIGHTS], directory / WEIGHTS)
    load_buffers(small, tensors.get(BUFFERS, {}), directory / BUFFERS)
    return small.eval()


def read_plan(directory: str | Path) -> Plan:
    """The plan of the network in a directory; ``InputError`` where it can't be read."""
    directory = Path(directory)
    return _parsed(read_file(directory, PLAN, read_description(directory)), directory / PLAN)


def _parsed(content: bytes, path: Path) -> Plan:
    try:
        return Plan.from_json(content.decode("utf-8"))
    except (InputError, ValueError, AttributeError, OverflowError, RecursionError) as error:
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


def _build(directory: Path, description: Description) -> nn.Module:
    from lcprune.models import build  # a later stage, needed only where no model is given

    factory = str(description.factory)
    shape = description.inputs[0].shape if description.inputs else ()
    if len(shape) != 4:
        raise InputError(
            f"{directory}: {factory} can't be built for inputs of shape {list(shape)}, expected "
            "images: pass the unpruned model"
        )
    _, channels, height, width = shape
    try:
        return build(factory, classes=description.classes, input_shape=(channels, height, width))
    except (InputError, RuntimeError, MemoryError) as error:
        raise ModelError(f"{directory / ARTIFACT}: the factory fails: {one_line(error)}") from error


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


def _check_fit(plan: Plan, model: nn.Module, path: Path) -> None:
    """``InputError`` with the first tensor or attribute of a plan that a model does not have."""
    tensors = dict(
        [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    )
    for (name, dim), indices in plan.kept.items():
        if name not in tensors:
            raise InputError(f"{path} prunes {name}, which the model does not have")
        shape = list(tensors[name].shape)
        if not 0 <= dim < len(shape):
            raise InputError(f"{path} prunes dimension {dim} of {name}, whose shape is {shape}")
        ascending = all(a < b for a, b in pairwise(indices))
        if not indices or not ascending or indices[0] < 0 or indices[-1] >= shape[dim]:
            raise InputError(
                f"{path} keeps indices {_ends(indices)} of dimension {dim} of {name}, "
                f"whose shape is {shape}"
            )
    for edit in plan.attributes:
        try:
            old = getattr(model.get_submodule(edit.module), edit.name)
            if edit.index is not None:
                old[edit.index]
        except (AttributeError, IndexError, TypeError) as error:
            raise InputError(
                f"{path} changes {edit.name} of {edit.module}, which the model does not have"
            ) from error


def _ends(indices: tuple[int, ...]) -> str:
    return "none" if not indices else f"{indices[0]} … {indices[-1]}"
