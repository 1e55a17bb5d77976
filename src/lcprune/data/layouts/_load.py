"""Data sets by name."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path

from lcprune._checks import path, refused
from lcprune._factory import call_factory, is_factory
from lcprune.data._sets import Data
from lcprune.data.layouts._cifar import (
    CIFAR10_TEST,
    CIFAR10_TRAIN,
    CIFAR100_TEST,
    CIFAR100_TRAIN,
    cifar10_binary,
    cifar100_binary,
    cifar_tree,
)
from lcprune.data.layouts._cub200 import cub200
from lcprune.data.layouts._digits import digits
from lcprune.data.layouts._imagenet import imagenet
from lcprune.data.layouts._trees import image_folder, wrong_layout
from lcprune.errors import DataError

KINDS = ("digits", "cifar10", "cifar100", "imagenet", "cub200", "imagefolder")
EXPECTED = (
    ", ".join([KINDS[0], *(f"{kind}:ROOT" for kind in KINDS[1:])])
    + ", path/to/file.py:factory or package.module:factory"
)
_SIZED = re.compile(r"(?P<root>.+)@(?P<size>[1-9][0-9]*)")
_LEAST, _MOST = 8, 4096


def load_data(spec: str) -> Data:
    """Load a data set: small images into memory, of large ones the list of files.

    ``spec`` is ``digits``; ``cifar10:ROOT`` or ``cifar100:ROOT`` (a tree train/CLASS/*,
    test/CLASS/*, or the official binary files); ``imagenet:ROOT`` and ``cub200:ROOT`` (official
    layouts); ``imagefolder:ROOT`` (train/ and val/ or test/); each of the last three also as
    ``KIND:ROOT@SIZE`` for images of another size than the usual; or ``path/to/file.py:factory`` /
    ``package.module:factory`` for a function that returns a ``Data`` (the last colon splits).
    ``DataError`` where there is no such set or it is damaged.
    """
    if not isinstance(spec, str):
        raise refused("data", spec, EXPECTED, DataError)
    kind, colon, where = spec.partition(":")
    if spec == "digits":
        return digits()
    if kind in KINDS[1:]:
        if not where:
            raise DataError(f"{spec}: expected a folder, as {kind}:ROOT")
        return _from_folder(kind, where)
    if is_factory(spec):
        return _from_factory(spec)
    matches = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.5) if colon or kind else []
    hint = f"did you mean {matches[0]}?" if matches else f"expected {EXPECTED}"
    raise DataError(f"unknown data set {spec!r}: {hint}")


def runs_code(spec: str) -> bool:
    """Whether ``load_data`` would import code from outside of lcprune."""
    return spec.partition(":")[0] not in KINDS[1:] and is_factory(spec)


def _from_folder(kind: str, where: str) -> Data:
    try:
        root, size = _root_of(kind, where)
        return _LOADERS[kind](root) if size is None else _SIZED_LOADERS[kind](root, size)
    except OSError as error:  # no permission, a name that is too long, a disk that fails
        file = where if error.filename is None else os.fsdecode(error.filename)
        raise DataError(f"{file}: can't be read: {error.strerror or error}") from error


def _root_of(kind: str, where: str) -> tuple[Path, int | None]:
    """The folder, and the size of images where one is asked for."""
    root, size = path("data", where, DataError), None
    sized = _SIZED.fullmatch(where)
    if sized and not root.is_dir():
        root = path("data", sized["root"], DataError)
        size = int(sized["size"]) if len(sized["size"]) < 9 else _MOST + 1
        if not _LEAST <= size <= _MOST:
            raise DataError(f"{kind}:{where}: expected images of {_LEAST} to {_MOST} pixels a side")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if size is not None and kind in ("cifar10", "cifar100"):
        raise DataError(f"{kind}:{where}: images of CIFAR are 32x32, expected {kind}:ROOT")
    return root, size


def _cifar10(root: Path) -> Data:
    return _cifar("cifar10", root, 10, (*CIFAR10_TRAIN, CIFAR10_TEST), cifar10_binary)


def _cifar100(root: Path) -> Data:
    return _cifar("cifar100", root, 100, (CIFAR100_TRAIN, CIFAR100_TEST), cifar100_binary)


def _cifar(
    name: str, root: Path, classes: int, files: tuple[str, ...], binary: Callable[[Path], Data]
) -> Data:
    if (root / "train").is_dir() and (root / "test").is_dir():
        return cifar_tree(root, name, classes)
    official = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[name]
    for folder in (root, root / official):
        if any((folder / file).is_file() for file in files):
            return binary(folder)
    raise wrong_layout(root, f"train/CLASS/* and test/CLASS/*, or {files[0]} … {files[-1]}")


_SIZED_LOADERS: dict[str, Callable[[Path, int], Data]] = {
    "imagenet": imagenet,
    "cub200": cub200,
    "imagefolder": image_folder,
}
_LOADERS: dict[str, Callable[[Path], Data]] = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "imagenet": imagenet,
    "cub200": cub200,
    "imagefolder": image_folder,
}


def _from_factory(spec: str) -> Data:
    data = call_factory(spec, DataError)
    if not isinstance(data, Data):
        raise DataError(f"{spec}: expected a Data, got {type(data).__name__}")
    return data if data.name else dataclasses.replace(data, name=spec)
