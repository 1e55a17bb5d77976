"""What ``artifact.json`` says about a saved network, and whether its files are those."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from lcprune._checks import refused
from lcprune._files import LARGEST, read_sealed_json, read_whole, sealed_json
from lcprune.artifact._example import parsed, recorded
from lcprune.errors import InputError
from lcprune.tracing import Inputs

PLAN = "plan.json"
WEIGHTS = "model.safetensors"
BUFFERS = "buffers.safetensors"
"""Buffers that are not part of a model's state; only where it has any."""
ARTIFACT = "artifact.json"
"""What ``load`` needs beside the other files, and their hashes."""
NEW = ".new"
"""How the names of files end while ``artifact.json`` names them already and they are about to
take the place of older ones."""

MOST_CLASSES = 2**22
"""More outputs than a classifier has."""

_LARGEST_PLAN = 2**26
_PACKAGES = ("lcprune", "torch", "torchvision", "timm", "numpy", "safetensors")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@dataclass(frozen=True)
class Description:
    """The contents of ``artifact.json``.

    ``factory`` and ``classes`` build the unpruned network. ``example`` is what the network was
    called with when it was saved, tensors without their values. ``sha256`` is the hash of each
    file by name. ``complex`` names the tensors that are stored as pairs of real numbers.
    """

    factory: str | None
    classes: int | None
    example: Inputs
    sha256: Mapping[str, str]
    complex: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=versions)

    def to_json(self) -> str:
        """The description as JSON text with a checksum of itself."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return sealed_json(values | {"example": recorded(self.example)})


def read_description(directory: Path) -> Description:
    """What ``artifact.json`` says, each field checked; ``InputError`` where it can't be used."""
    path = directory / ARTIFACT
    if not os.path.lexists(path):
        raise InputError(f"{directory} holds no saved model: {ARTIFACT} is missing")
    raw = read_sealed_json(path)
    hashes = _texts(path, raw, "sha256")
    if not {PLAN, WEIGHTS} <= hashes.keys() <= {PLAN, WEIGHTS, BUFFERS}:
        raise _unexpected(path, "sha256", raw["sha256"], f"hashes of {PLAN} and {WEIGHTS}")
    factory, classes = raw.get("factory"), raw.get("classes")
    if not (factory is None or isinstance(factory, str)):
        raise _unexpected(path, "factory", factory, "a name or null")
    if not (classes is None or _is_count(classes)):
        raise _unexpected(path, "classes", classes, "a positive number or null")
    names = raw.get("complex", [])
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise _unexpected(path, "complex", names, "a list of names")
    return Description(
        factory=factory,
        classes=classes,
        example=_example(path, raw.get("example")),
        sha256=hashes,
        complex=tuple(names),
        versions=_texts(path, raw, "versions"),
    )


def read_file(directory: Path, name: str, description: Description) -> bytes:
    """The bytes of a file whose hash is that in the description, else ``InputError``.

    The bytes that are checked are those that are returned: a file that is replaced meanwhile is
    either the old one or does not fit.
    """
    wanted = description.sha256.get(name)
    limit = _LARGEST_PLAN if name == PLAN else LARGEST
    with suppress(InputError):  # there is one where a process was killed while it saved
        content = read_whole(directory / f"{name}{NEW}", limit=limit)
        if hashlib.sha256(content).hexdigest() == wanted:
            return content
    if not os.path.lexists(directory / name):
        raise InputError(f"{directory} is not complete: {name} is missing")
    content = read_whole(directory / name, limit=limit)
    if hashlib.sha256(content).hexdigest() != wanted:
        raise InputError(f"{directory / name} is not the file that was saved: its hash differs")
    return content


def _example(path: Path, raw: Any) -> Inputs:
    try:
        return parsed(raw)
    except ValueError as error:
        raise InputError(f"{path}: the example: {error}") from error


def _texts(path: Path, raw: dict[str, Any], key: str) -> dict[str, str]:
    value = raw.get(key)
    if not (isinstance(value, dict) and all(isinstance(text, str) for text in value.values())):
        raise _unexpected(path, key, value, "a text for each name")
    return value


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST_CLASSES


def _unexpected(path: Path, key: str, value: Any, expected: str) -> InputError:
    return refused(f"{path}: {key}", value, expected)
