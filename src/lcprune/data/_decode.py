"""Image files become one uint8 tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lcprune.errors import DataError

Size = tuple[int, int]
"""Width and height."""

THREADS = 4
CHUNK = 256
MAX_BYTES = 8 * 2**30

T = TypeVar("T")


def decode(files: Sequence[Path], size: Size, *, resize: bool) -> Tensor:
    """Decode images as RGB into uint8 (N, 3, H, W).

    With ``resize`` an image of another size is scaled until it covers ``size`` and cut to its
    centre. ``DataError`` names the first file that is damaged or, without ``resize``, of another
    size, and is raised where all of them would take more than ``MAX_BYTES``.
    """
    width, height = size
    needed = len(files) * width * height * 3
    if needed > MAX_BYTES:
        raise DataError(
            f"{files[0].parent.parent}: {len(files)} images of {width}x{height} take "
            f"{needed / 2**30:.1f} GiB in memory, expected at most {MAX_BYTES / 2**30:.0f}: "
            "shrink the images"
        )
    output = np.empty((len(files), height, width, 3), dtype=np.uint8)

    def read(index: int, image: Image.Image) -> None:
        if image.size != size:
            if not resize:
                raise DataError(
                    f"{files[index]}: expected {width}x{height} pixels, "
                    f"got {image.width}x{image.height}"
                )
            image = _cover(image.convert("RGB"), size)
        output[index] = np.asarray(image.convert("RGB"))

    _each(files, read)
    return torch.from_numpy(output).permute(0, 3, 1, 2).contiguous()


def common_size(files: Sequence[Path]) -> Size:
    """The most frequent width and height, read from the files' headers alone."""
    sizes = _each(files, lambda _, image: image.size)
    counts = Counter(sizes)
    return max(counts, key=lambda size: (counts[size], size))


def _each(files: Sequence[Path], work: Callable[[int, Image.Image], T]) -> list[T]:
    def block(start: int) -> list[T]:
        return [one(index) for index in range(start, min(start + CHUNK, len(files)))]

    def one(index: int) -> T:
        try:
            with Image.open(files[index]) as image:
                return work(index, image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{files[index]}: can't be read as an image: {reason}") from error

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            blocks = list(pool.map(block, range(0, len(files), CHUNK)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [value for values in blocks for value in values]


def _cover(image: Image.Image, size: Size) -> Image.Image:
    scale = max(size[0] / image.width, size[1] / image.height)
    width = max(size[0], round(image.width * scale))
    height = max(size[1], round(image.height * scale))
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    return scaled.crop((left, top, left + size[0], top + size[1]))
