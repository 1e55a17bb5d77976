"""CUB-200-2011, the birds (Wah et al., 2011)."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from lcprune._text import shown
from lcprune.data._sets import Data, FileNames
from lcprune.data.layouts._trees import SIZE, Split, read_lines, standard_data, wrong_layout
from lcprune.errors import DataError

FOLDER = "CUB_200_2011"
IMAGES, LABELS, SPLIT = "images.txt", "image_class_labels.txt", "train_test_split.txt"
CLASSES = "classes.txt"
LONGEST = 1000
"""Characters of the longest name of an image below its folder."""
NUMBER = re.compile(r"[0-9]{1,9}")


def cub200(root: Path, size: int = SIZE) -> Data:
    """Load CUB-200-2011 from ``root``, or the folder CUB_200_2011 in it.

    The lists are joined by the images' ids: ``images.txt`` says which images there are, and may
    name fewer than the others. Classes are those that have images, in the order of their numbers.
    ``DataError`` where a list is missing or damaged, an image has no label, or a file is missing.
    """
    folder = root / FOLDER if (root / FOLDER).is_dir() else root
    if not (folder / IMAGES).is_file() or not (folder / "images").is_dir():
        raise wrong_layout(root, f"{IMAGES}, {LABELS}, {SPLIT}, {CLASSES} and images/")
    paths = _table(folder / IMAGES)
    names = _table(folder / CLASSES)
    class_of = _table(folder / LABELS)
    split_of = _table(folder / SPLIT)
    for image in paths:
        _check(folder, image, paths[image], names, class_of, split_of)
    present = sorted({class_of[image] for image in paths}, key=int)
    label_of = {number: label for label, number in enumerate(present)}

    def split(flag: str) -> Split:
        chosen = [image for image in paths if split_of[image] == flag]
        labels = torch.tensor([label_of[class_of[image]] for image in chosen], dtype=torch.int64)
        return Split(FileNames(folder / "images", [paths[image] for image in chosen]), labels)

    classes = tuple(names[number] for number in present)
    return standard_data("cub200", root, classes, split("1"), split("0"), (size, size))


def _check(
    folder: Path,
    image: str,
    path: str,
    names: dict[str, str],
    class_of: dict[str, str],
    split_of: dict[str, str],
) -> None:
    """``DataError`` unless an image has a file, a class and a split."""
    if image not in class_of:
        raise DataError(f"{folder / LABELS}: no class for image {image}, {path}")
    if class_of[image] not in names:
        raise DataError(
            f"{folder / LABELS}: image {image} is of class {class_of[image]}, "
            f"expected a number that {CLASSES} lists"
        )
    if split_of.get(image) not in ("0", "1"):
        raise DataError(
            f"{folder / SPLIT}: expected 0 or 1 for image {image}, got {split_of.get(image)}"
        )
    if Path(path).is_absolute() or ".." in Path(path).parts or len(path) > LONGEST:
        raise DataError(f"{folder / IMAGES}: image {image} is {shown(path)}, no file in images/")
    if not (folder / "images" / path).is_file():
        raise DataError(f"{folder / 'images' / path}: no such file, but {IMAGES} names it")


def _table(file: Path) -> dict[str, str]:
    """A list of a number and a value a line."""
    table: dict[str, str] = {}
    for count, line in enumerate(read_lines(file), 1):
        number, _, value = line.partition(" ")
        if not number:
            continue
        if not NUMBER.fullmatch(number) or not value or number in table:
            raise DataError(f"{file}: line {count}: expected a new number and a value")
        table[number] = value
    return table
