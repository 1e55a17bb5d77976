"""Which data set a folder holds, for whoever named another."""

from __future__ import annotations

import re
from pathlib import Path

from lcprune.data._class_tree import is_class, is_image
from lcprune.errors import DataError

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
