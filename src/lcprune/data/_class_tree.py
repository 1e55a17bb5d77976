"""Files of a folder that holds one folder of images per class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lcprune.data._file_names import FileNames
from lcprune.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)


@dataclass(frozen=True, eq=False)
class ClassTree:
    """The image files of one split, sorted by class and name; ``labels`` is int64 (N,)."""

    classes: tuple[str, ...]
    files: FileNames
    labels: Tensor


def class_tree(folder: Path, classes: tuple[str, ...] | None = None) -> ClassTree:
    """List ``folder``/CLASS/*: every class in alphabetical order, every file by name.

    With ``classes`` the folder must hold just these. ``DataError`` for a folder that can't be
    read, one class only, or a class without images.
    """
    try:
        found = tuple(sorted(p.name for p in folder.iterdir() if is_class(p)))
        _check_classes(folder, found, classes)
        names: list[str] = []
        counts: list[int] = []
        for name in found:
            # Of a million files the names alone are enough.
            members = sorted(n for n in os.listdir(folder / name) if is_image(Path(n)))  # noqa: PTH208
            if not members:
                raise DataError(f"{folder / name}: no images in this class folder")
            names += [f"{name}/{member}" for member in members]
            counts.append(len(members))
    except OSError as error:
        raise DataError(f"{folder}: can't be read: {error.strerror}") from error
    labels = torch.repeat_interleave(torch.arange(len(found)), torch.tensor(counts))
    return ClassTree(found, FileNames(folder, names), labels)


def is_class(path: Path) -> bool:
    """Whether this is a folder that is not hidden."""
    return not path.name.startswith(".") and path.is_dir()


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _check_classes(folder: Path, found: tuple[str, ...], expected: tuple[str, ...] | None) -> None:
    if expected is not None:
        for name in expected:
            if name not in found:
                raise DataError(f"{folder}: no folder for class {name!r} of the training images")
        for name in found:
            if name not in expected:
                raise DataError(f"{folder}: class {name!r} is not among the training images")
    if len(found) < 2:
        what = "none" if not found else f"{found[0]!r} only"
        raise DataError(f"{folder}: expected a folder for each of at least two classes, got {what}")
