"""Small trees of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


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
