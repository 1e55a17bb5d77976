"""Trees of image files, a folder for each class, and which data set a folder holds."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lcprune._files import read_whole
from lcprune.data._image_file import SUFFIXES
from lcprune.data._pixels import Size, common_size, decode, is_small
from lcprune.data._sets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Data,
    FileNames,
    ImageFiles,
    Images,
    ImageSet,
    standard_augmentation,
)
from lcprune.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Image files and the labels, int64 (N,), that belong to them."""

    files: FileNames
    labels: Tensor


@dataclass(frozen=True, eq=False)
class ClassTree(Split):
    """Those of a folder for each class, sorted by class and name."""

    classes: tuple[str, ...]


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
    return ClassTree(FileNames(folder, names), labels, found)


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


LIST_BYTES = 64 * 2**20
"""Most that a text file which lists images may hold: a million lines have less."""


def read_lines(file: Path) -> list[str]:
    """The lines of a text file in UTF-8, with or without a byte order mark.

    ``DataError`` where it is missing, no ordinary file, no text, or far too long for a list.
    """
    try:
        text = read_whole(file, DataError, limit=LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DataError(f"can't read {file}: it is not a text file in UTF-8")
    return [line.strip() for line in text.split("\n")]


WNID = re.compile(r"n\d{8}")
"""Name of an ImageNet class: the number of a noun in WordNet."""


def wrong_layout(root: Path, expected: str) -> DataError:
    """The error for a folder that does not hold ``expected``, with what it looks like instead."""
    seen = looks_like(root)
    inside = [] if seen else [(p, looks_like(p)) for p in _folders(root)]
    found = seen or next((hint for _, hint in inside if hint), None)
    return DataError(f"{root}: expected {expected}" + (f"; {found}" if found else ""))


def looks_like(root: Path) -> str | None:
    """In a few words, what the folder seems to hold; none where it is nothing that is known."""
    if (root / "image_class_labels.txt").is_file():
        return f"this looks like cub200:{root}"
    if (root / "data_batch_1.bin").is_file():
        return f"this looks like cifar10:{root}"
    if (root / "train.bin").is_file():
        return f"this looks like cifar100:{root}"
    if (root / "data_batch_1").is_file() or (root / "meta").is_file():
        return "this looks like CIFAR's pickled version, get the binary version"
    splits = [name for name in ("train", "test", "val") if (root / name).is_dir()]
    if "train" in splits and any(WNID.fullmatch(p.name) for p in _folders(root / "train")):
        return f"this looks like imagenet:{root}"
    if "train" in splits and len(splits) > 1:
        return f"this looks like imagefolder:{root}"
    if "train" in splits:
        return "there are training images, but no folder test/ or val/"
    if not splits and any(any(map(is_image, p.iterdir())) for p in _folders(root)[:3]):
        return "there are folders of images, put them into train/ and val/"
    return None


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if is_class(path))
    except OSError:
        return []


MEMORY_BYTES = 2 * 2**30
"""Small images are held in memory up to this size of a split."""

SIZE = 224


def standard_data(
    name: str,
    root: Path,
    classes: tuple[str, ...],
    train: Split,
    test: Split,
    size: Size,
) -> Data:
    """Images of one size, normalised as for ImageNet, augmented as is usual for the size."""
    _check_every_class(root, classes, train.labels)
    shape = (3, *size)
    return Data(
        train=image_set(train, size),
        test=image_set(test, size),
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_shape=shape,
        name=name,
        augmentation=standard_augmentation(shape),
    )


def image_set(split: Split, size: Size) -> ImageSet:
    """Small images in memory, as long as there are not too many; others are streamed."""
    if is_small(size) and len(split.labels) * 3 * size[0] * size[1] <= MEMORY_BYTES:
        return Images(decode(split.files, size, resize=True), split.labels)
    return ImageFiles(split.files, split.labels, size)


def _check_every_class(root: Path, classes: tuple[str, ...], labels: Tensor) -> None:
    present = set(labels.tolist())
    for label, name in enumerate(classes):
        if label not in present:
            raise DataError(f"{root}: class {name!r} has no training images")


SAMPLE = 1000
"""Files whose headers are read to find the size of a folder's images."""


def image_folder(root: Path, size: int | None = None) -> Data:
    """Load ``root``/train/CLASS/* and ``root``/test/CLASS/* (or val/, where test/ is absent).

    All images take one size: ``size``, or else the most common one of (some thousand of) the
    training images where that is at most 96 pixels, or else 224. ``DataError`` for a split that
    is missing, a class without images, one class only, or, of images that are held in memory,
    one that is damaged (named).
    """
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test is None:
        raise wrong_layout(root, "the folders train/ and val/ or test/")
    if not any(is_class(path) for path in test.iterdir()):
        raise wrong_layout(root, f"a folder for each class in {test.name}/")
    train_tree = class_tree(root / "train")
    test_tree = class_tree(test, train_tree.classes)
    return standard_data(
        "imagefolder",
        root,
        train_tree.classes,
        train_tree,
        test_tree,
        _usual_size(train_tree) if size is None else (size, size),
    )


def _usual_size(tree: ClassTree) -> Size:
    step = -(-len(tree.files) // SAMPLE)
    size = common_size(tree.files[::step])
    return size if is_small(size) else (SIZE, SIZE)
