"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), as a tree of images or in the binary layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lcprune._files import read_whole
from lcprune.data._pixels import Size, decode
from lcprune.data._sets import IMAGENET_MEAN, IMAGENET_STD, Data, Images, standard_augmentation
from lcprune.data.layouts._trees import ClassTree, class_tree, read_lines, wrong_layout
from lcprune.errors import DataError

PIXELS = 3 * 32 * 32
"""Bytes of an image after its labels: the red, green and blue planes."""

FILE_BYTES = 2**30
"""Most that a file may hold: six times the largest official one."""

CIFAR10_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR10_TEST = "test_batch.bin"
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CIFAR100_TRAIN, CIFAR100_TEST, CIFAR100_NAMES = "train.bin", "test.bin", "fine_label_names.txt"


def cifar_tree(root: Path, name: str, classes: int) -> Data:
    """Load CIFAR as ``root``/train/CLASS/* and ``root``/test/CLASS/*, 32x32 pixels each.

    Some of the ``classes`` may be missing.
    """
    train = class_tree(root / "train")
    if len(train.classes) > classes:
        raise wrong_layout(root, f"at most {classes} classes, got {len(train.classes)}")
    test = class_tree(root / "test", train.classes)
    return Data(
        train=_in_memory(train, (32, 32)),
        test=_in_memory(test, (32, 32)),
        classes=train.classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_shape=(3, 32, 32),
        name=name,
        augmentation=standard_augmentation((3, 32, 32)),
    )


def cifar10_binary(folder: Path) -> Data:
    """Load ``data_batch_1.bin`` to ``_5`` and ``test_batch.bin``: a label, then the pixels.

    ``DataError`` names the first file that is missing or damaged.
    """
    return _data(
        "cifar10",
        [folder / name for name in CIFAR10_TRAIN],
        folder / CIFAR10_TEST,
        CIFAR10_CLASSES,
        labels=1,
    )


def cifar100_binary(folder: Path) -> Data:
    """Load ``train.bin`` and ``test.bin``: a coarse label, a fine one, then the pixels.

    The fine labels are the classes; their names are in ``fine_label_names.txt``. ``DataError``
    names the first file that is missing or damaged.
    """
    names = folder / CIFAR100_NAMES
    classes = tuple(name for line in read_lines(names) for name in line.split())
    if len(set(classes)) != 100:
        raise DataError(f"{names}: expected 100 different names, got {len(set(classes))}")
    train, test = folder / CIFAR100_TRAIN, folder / CIFAR100_TEST
    return _data("cifar100", [train], test, classes, labels=2)


def _data(name: str, train: list[Path], test: Path, classes: tuple[str, ...], labels: int) -> Data:
    return Data(
        train=_images(train, classes, labels),
        test=_images([test], classes, labels),
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_shape=(3, 32, 32),
        name=name,
    )


def _images(files: list[Path], classes: tuple[str, ...], labels: int) -> Images:
    records = torch.from_numpy(
        np.concatenate([_records(file, len(classes), labels) for file in files])
    )
    pixels = records[:, labels:].reshape(-1, 3, 32, 32).contiguous()
    return Images(pixels, records[:, labels - 1].to(torch.int64))


def _records(
    file: Path, classes: int, labels: int
) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    length = labels + PIXELS
    raw = np.frombuffer(read_whole(file, DataError, limit=FILE_BYTES), dtype=np.uint8)
    if raw.size == 0 or raw.size % length:
        raise DataError(f"{file}: {raw.size} bytes, expected a multiple of {length}")
    records = raw.reshape(-1, length)
    highest = int(records[:, labels - 1].max())
    if highest >= classes:
        raise DataError(f"{file}: label {highest}, expected 0 to {classes - 1}")
    return records


def _in_memory(tree: ClassTree, size: Size) -> Images:
    return Images(decode(tree.files, size, resize=False), tree.labels)
