"""Files of a folder that holds one folder of images per class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lcprune.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)


@dataclass(frozen=True)
class ClassTree:
    """The image files of one split, sorted by class and name, and the class of each."""

    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]


def class_tree(folder: Path, classes: tuple[str, ...] | None = None) -> ClassTree:
    """List ``folder``/CLASS/*: every class in alphabetical order, every file by name.

    With ``classes`` the folder must hold just these. ``DataError`` for a folder that can't be
    read, one class only, or a class without images.
    """
    try:
        found = tuple(sorted(p.name for p in folder.iterdir() if _is_class(p)))
        _check_classes(folder, found, classes)
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(found):
            members = sorted(p for p in (folder / name).iterdir() if _is_image(p))
            if not members:
                raise DataError(f"{folder / name}: no images in this class folder")
            files += members
            labels += [label] * len(members)
    except OSError as error:
        raise DataError(f"{folder}: can't be read: {error.strerror}") from error
    return ClassTree(found, tuple(files), tuple(labels))


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


def _is_class(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
