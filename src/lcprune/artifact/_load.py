"""A saved network, back from its files."""

from __future__ import annotations

import warnings
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
from lcprune.slimming import check_fit, slim


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
    check_fit(model, plan, str(directory / PLAN))
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
