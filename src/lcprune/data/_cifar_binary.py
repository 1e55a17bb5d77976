"""CIFAR-10 in its official binary layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lcprune.data._values import IMAGENET_MEAN, IMAGENET_STD, Data, Images
from lcprune.errors import DataError

RECORD = 1 + 3 * 32 * 32
"""Bytes of an image: its label, then the red, green and blue planes."""

TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
CLASSES = (
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


def cifar10_binary(folder: Path) -> Data:
    """Load ``data_batch_1.bin`` to ``_5`` and ``test_batch.bin`` (Krizhevsky, 2009).

    ``DataError`` names the first file that is missing or damaged.
    """
    return Data(
        train=_images([folder / name for name in TRAIN_FILES]),
        test=_images([folder / TEST_FILE]),
        classes=CLASSES,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_shape=(3, 32, 32),
        name="cifar10",
    )


def _images(files: list[Path]) -> Images:
    records = torch.from_numpy(np.concatenate([_records(file) for file in files]))
    return Images(records[:, 1:].reshape(-1, 3, 32, 32).contiguous(), records[:, 0].to(torch.int64))


def _records(file: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    try:
        raw = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{file}: can't be read: {error.strerror}") from error
    if raw.size == 0 or raw.size % RECORD:
        raise DataError(f"{file}: {raw.size} bytes, expected a multiple of {RECORD}")
    records = raw.reshape(-1, RECORD)
    if int(records[:, 0].max()) >= len(CLASSES):
        raise DataError(f"{file}: label {int(records[:, 0].max())}, expected 0 to 9")
    return records
