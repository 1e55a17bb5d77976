"""Files and labels become a data set with everything else as is usual."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lcprune.data._class_tree import ClassTree
from lcprune.data._decode import decode
from lcprune.data._file_names import FileNames
from lcprune.data._geometry import Size
from lcprune.data._image_files import ImageFiles
from lcprune.data._recipes import is_small, standard_augmentation
from lcprune.data._values import IMAGENET_MEAN, IMAGENET_STD, Data, Images, ImageSet
from lcprune.errors import DataError

MEMORY_BYTES = 2 * 2**30
"""Small images are held in memory up to this size of a split."""

SIZE = 224


@dataclass(frozen=True, eq=False)
class Split:
    """Image files and the labels, int64 (N,), that belong to them."""

    files: FileNames
    labels: Tensor

    @classmethod
    def of(cls, tree: ClassTree) -> Split:
        """The files of a tree."""
        return cls(tree.files, tree.labels)


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
