"""Data sets that are trees of image files."""

from __future__ import annotations

from pathlib import Path

from lcprune.data._class_tree import ClassTree, class_tree, is_class
from lcprune.data._decode import common_size, decode
from lcprune.data._geometry import Size
from lcprune.data._recipes import is_small, standard_augmentation
from lcprune.data._recognise import wrong_layout
from lcprune.data._standard import SIZE, Split, standard_data
from lcprune.data._values import IMAGENET_MEAN, IMAGENET_STD, Data, Images

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
        Split.of(train_tree),
        Split.of(test_tree),
        _usual_size(train_tree) if size is None else (size, size),
    )


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


def _usual_size(tree: ClassTree) -> Size:
    step = -(-len(tree.files) // SAMPLE)
    size = common_size(tree.files[::step])
    return size if is_small(size) else (SIZE, SIZE)


def _in_memory(tree: ClassTree, size: Size) -> Images:
    return Images(decode(tree.files, size, resize=False), tree.labels)
