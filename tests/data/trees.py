"""Small trees of image files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

WNIDS = ("n01440764", "n01443537", "n02084071")
DEVKIT = Path("ILSVRC2012_devkit_t12", "data")


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """A picture of noise."""
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def write_tree(
    root: Path,
    *,
    splits: tuple[str, ...] = ("train", "test"),
    classes: tuple[str, ...] = ("ant", "bee"),
    count: int = 3,
    size: tuple[int, int] = (32, 32),
) -> Path:
    """Write ``count`` pictures for every split and class."""
    seed = 0
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(seed, size).save(folder / f"{i}.png")
                seed += 1
    return root


def smooth(seed: int, size: tuple[int, int]) -> Image.Image:
    """A picture of soft colours, which survive compression and scaling."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def write_files(root: Path, sizes: Iterable[tuple[int, int]]) -> list[Path]:
    """Write a smooth picture of each size, as 0.png, 1.png, …"""
    files = []
    for index, size in enumerate(sizes):
        files.append(root / f"{index}.png")
        smooth(index, size).save(files[-1])
    return files


def write_imagenet(root: Path, *, flat: bool, count: int = 2) -> list[int]:
    """Write ImageNet's layout with three classes; the labels of the validation images by name.

    The devkit's own numbers of the classes run against their alphabetical order, and a fourth
    class has no images.
    """
    for name in WNIDS:
        (root / "train" / name).mkdir(parents=True)
        for i in range(count):
            smooth(i, (60, 40)).save(root / "train" / name / f"{name}_{i}.JPEG")
    labels = [2, 0, 0, 1]
    (root / "val").mkdir()
    for i, label in enumerate(labels, 1):
        folder = root / "val" if flat else root / "val" / WNIDS[label]
        folder.mkdir(exist_ok=True)
        smooth(10 + i, (50, 60)).save(folder / f"ILSVRC2012_val_{i:08}.JPEG")
    if flat:
        devkit = root / DEVKIT
        devkit.mkdir(parents=True)
        truth = devkit / "ILSVRC2012_validation_ground_truth.txt"
        truth.write_text("".join(f"{len(WNIDS) - label}\n" for label in labels) + "4\n")
        kinds = np.dtype([("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
        rows = [(3 - i, name, "a fish") for i, name in enumerate(WNIDS)] + [(4, "n09999999", "x")]
        savemat(devkit / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    return labels if flat else sorted(labels)


def write_cub(root: Path) -> Path:
    """Write CUB-200-2011's layout: five images of the classes 2 and 10, lists of seven images."""
    folder = root / "CUB_200_2011"
    images = {1: ("002.Laysan", 2), 3: ("010.Grackle", 10), 4: ("010.Grackle", 10)}
    images |= {5: ("002.Laysan", 2), 7: ("010.Grackle", 10)}
    lines = []
    for number, (name, _) in images.items():
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        smooth(number, (50, 40)).save(folder / "images" / name / f"Bird_{number}.jpg")
        lines.append(f"{number} {name}/Bird_{number}.jpg\n")
    (folder / "images.txt").write_text("".join(lines))
    names = {2: "002.Laysan", 5: "005.Auklet", 10: "010.Grackle"}
    (folder / "classes.txt").write_text("".join(f"{n} {name}\n" for n, name in names.items()))
    labels = {number: label for number, (_, label) in images.items()} | {2: 5, 6: 5}
    table = "".join(f"{number} {labels[number]}\n" for number in range(1, 8))
    (folder / "image_class_labels.txt").write_text(table)
    table = "".join(f"{number} {int(number in (1, 4, 6))}\n" for number in range(1, 8))
    (folder / "train_test_split.txt").write_text(table)
    return folder
