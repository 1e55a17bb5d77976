"""Data sets by name."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path

from lcprune._factory import call_factory, is_factory
from lcprune.data._cifar_binary import TEST_FILE, TRAIN_FILES, cifar10_binary
from lcprune.data._digits import digits
from lcprune.data._folders import cifar_tree, image_folder
from lcprune.data._values import Data
from lcprune.errors import DataError

KINDS = ("digits", "cifar10", "imagefolder")
EXPECTED = (
    "digits, cifar10:ROOT, imagefolder:ROOT, path/to/file.py:factory or package.module:factory"
)


def load_data(spec: str) -> Data:
    """Load a data set into memory.

    ``spec`` is ``digits``, ``cifar10:ROOT`` (a tree train/CLASS/*, test/CLASS/*, or the official
    binary files), ``imagefolder:ROOT`` (train/ and val/ or test/), or
    ``path/to/file.py:factory`` / ``package.module:factory`` for a function that returns a
    ``Data`` (the last colon splits). ``DataError`` where there is no such set or it is damaged.
    """
    kind, colon, where = spec.partition(":")
    if spec == "digits":
        return digits()
    if kind in ("cifar10", "imagefolder"):
        if not where:
            raise DataError(f"{spec}: expected a folder, as {kind}:ROOT")
        root = Path(where).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: no such folder")
        return _cifar10(root) if kind == "cifar10" else image_folder(root)
    if is_factory(spec):
        return _from_factory(spec)
    matches = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.5) if colon or kind else []
    hint = f"did you mean {matches[0]}?" if matches else f"expected {EXPECTED}"
    raise DataError(f"unknown data set {spec!r}: {hint}")


def _cifar10(root: Path) -> Data:
    if (root / "train").is_dir() and (root / "test").is_dir():
        return cifar_tree(root, "cifar10")
    for folder in (root, root / "cifar-10-batches-bin"):
        if any((folder / name).is_file() for name in (*TRAIN_FILES, TEST_FILE)):
            return cifar10_binary(folder)
    raise DataError(
        f"{root}: expected train/CLASS/* and test/CLASS/*, or data_batch_*.bin and {TEST_FILE}"
    )


def _from_factory(spec: str) -> Data:
    data = call_factory(spec, DataError)
    if not isinstance(data, Data):
        raise DataError(f"{spec}: expected a Data, got {type(data).__name__}")
    return data if data.name else dataclasses.replace(data, name=spec)
