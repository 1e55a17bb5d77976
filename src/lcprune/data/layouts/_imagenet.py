"""ImageNet as it is published for the challenge of 2012."""

from __future__ import annotations

import io
import re
import warnings
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lcprune._files import read_whole
from lcprune.data._sets import Data, FileNames
from lcprune.data.layouts._trees import (
    SIZE,
    WNID,
    Split,
    class_tree,
    is_class,
    is_image,
    read_lines,
    standard_data,
    wrong_layout,
)
from lcprune.errors import DataError

DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
META_BYTES = 16 * 2**20
INFLATED_BYTES = 64 * 2**20
NUMBER = re.compile(r"ILSVRC2012_val_([0-9]{8})")
LABEL = re.compile(r"[0-9]{1,9}")


def imagenet(root: Path, size: int = SIZE) -> Data:
    """Load ``root``/train/WNID/* and ``root``/val.

    ``val`` holds a folder for each class, or the files ILSVRC2012_val_*.JPEG as they come; then
    their labels are taken from ``root``/ILSVRC2012_devkit_t12/data. Classes are the WNIDs in
    alphabetical order, as torchvision and timm have them. ``DataError`` where a file is missing,
    damaged or doesn't fit the others.
    """
    train, val = root / "train", root / "val"
    if not train.is_dir() or not val.is_dir():
        raise wrong_layout(root, "the folders train/ and val/ of ImageNet")
    if not any(WNID.fullmatch(path.name) for path in train.iterdir()):
        raise wrong_layout(root, "folders like n01440764 in train/")
    tree = class_tree(train)
    sorted_already = any(is_class(path) for path in val.iterdir())
    test = class_tree(val, tree.classes) if sorted_already else _flat(root, tree.classes)
    return standard_data("imagenet", root, tree.classes, tree, test, (size, size))


def _flat(root: Path, classes: tuple[str, ...]) -> Split:
    """Join the files with the devkit's labels by the number in their names."""
    val = root / "val"
    names = sorted(path.name for path in val.iterdir() if is_image(path))
    if not names:
        raise DataError(f"{val}: expected a folder for each class or ILSVRC2012_val_*.JPEG")
    truth = _truth(root / DEVKIT / TRUTH)
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    wnid_of = _synsets(root / DEVKIT / META)
    labels = []
    for name in names:
        number = NUMBER.match(name)
        if number is None:
            raise DataError(f"{val / name}: expected a name like ILSVRC2012_val_00000001.JPEG")
        if not 1 <= int(number[1]) <= len(truth):
            raise DataError(f"{val / name}: {TRUTH} has labels for {len(truth)} images only")
        which = truth[int(number[1]) - 1]
        if which not in wnid_of:
            raise DataError(f"{root / DEVKIT / TRUTH}: label {which} is none of those in {META}")
        if wnid_of[which] not in label_of:
            raise DataError(f"{val / name}: its class {wnid_of[which]} is not in {root / 'train'}")
        labels.append(label_of[wnid_of[which]])
    return Split(FileNames(val, names), torch.tensor(labels))


def _truth(file: Path) -> list[int]:
    try:
        lines = [line for line in read_lines(file) if line]
    except DataError as error:
        raise DataError(
            f"{error}; the files in val/ are not sorted into folders, so their labels are needed"
        ) from error
    for count, line in enumerate(lines, 1):
        if not LABEL.fullmatch(line):
            raise DataError(f"{file}: line {count}: expected a number a line")
    return [int(line) for line in lines]


def _synsets(file: Path) -> dict[int, str]:
    """The WNID of each of the devkit's own numbers."""
    from scipy.io import loadmat  # takes a moment to import

    if not file.exists():
        raise DataError(f"{file}: no such file, it says which class a label of val/ is")
    raw = read_whole(file, DataError, limit=META_BYTES)
    try:
        _check_inflated(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = loadmat(io.BytesIO(raw), squeeze_me=True, variable_names=["synsets"])
        rows = np.atleast_1d(found["synsets"])
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    except Exception as error:  # whatever a damaged file makes of its parser
        raise DataError(f"{file}: expected the devkit's table of synsets") from error


def _check_inflated(raw: bytes) -> None:
    """``ValueError`` where the compressed parts of a MATLAB file are much more than a table.

    Its elements are a type, 15 for a compressed one, and a length (MAT-File Format, level 5).
    """
    order: Literal["little", "big"] = "little" if raw[126:128] == b"IM" else "big"
    left, start = INFLATED_BYTES, 128
    while start + 8 <= len(raw):
        kind = int.from_bytes(raw[start : start + 4], order)
        length = int.from_bytes(raw[start + 4 : start + 8], order)
        if kind == 15:
            stream = zlib.decompressobj()
            left -= len(stream.decompress(raw[start + 8 : start + 8 + length], left))
            if left <= 0:
                raise ValueError("too much for a table of synsets")
        start += 8 + length
