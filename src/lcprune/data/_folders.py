"""Data sets that are trees of image files."""

from __future__ import annotations

from pathlib import Path

import torch

from lcprune.data._class_tree import ClassTree, class_tree
from lcprune.data._decode import Size, common_size, decode
from lcprune.data._values import IMAGENET_MEAN, IMAGENET_STD, Data, Images
from lcprune.errors import DataError


def image_folder(root: Path) -> Data:
    """Load ``root``/train/CLASS/* and ``root``/test/CLASS/* (or val/, where test/ is absent).

    All images take the most common size of the training images (scaled to cover it, then cut to
    the centre) and are held in memory. Normalised as for ImageNet. ``DataError`` for a split that
    is missing, a class without images, one class only, or a damaged image (named).
    """
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test is None:
        raise DataError(f"{root}: expected the folders train/ and val/ or test/")
    train_tree = class_tree(root / "train")
    size = common_size(train_tree.files)
    return _data("imagefolder", train_tree, class_tree(test, train_tree.classes), size)


def cifar_tree(root: Path, name: str) -> Data:
    """Load CIFAR as ``root``/train/CLASS/* and ``root``/test/CLASS/*, 32x32 pixels each."""
    train = class_tree(root / "train")
    return _data(name, train, class_tree(root / "test", train.classes), (32, 32), resize=False)


def _data(name: str, train: ClassTree, test: ClassTree, size: Size, resize: bool = True) -> Data:
    return Data(
        train=_images(train, size, resize),
        test=_images(test, size, resize),
        classes=train.classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        input_shape=(3, size[1], size[0]),
        name=name,
    )


def _images(tree: ClassTree, size: Size, resize: bool) -> Images:
    return Images(decode(tree.files, size, resize=resize), torch.tensor(tree.labels))
