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

from lcprune.data._geometry import Size, central, cover
from lcprune.data._open import as_rgb, opened
from lcprune.errors import DataError

THREADS = 4
CHUNK = 256

T = TypeVar("T")


def decode(files: Sequence[Path], size: Size, *, resize: bool) -> Tensor:
    """Decode images as RGB into uint8 (N, 3, H, W); ``size`` is (H, W).

    With ``resize`` an image of another size is scaled until it covers ``size`` and cut to its
    centre. ``DataError`` names the first file that is damaged or, without ``resize``, of another
    size.
    """
    height, width = size
    output = np.empty((len(files), height, width, 3), dtype=np.uint8)

    def read(index: int, image: Image.Image) -> None:
        if (image.height, image.width) != size:
            if not resize:
                raise DataError(
                    f"{files[index]}: expected {width}x{height} pixels, "
                    f"got {image.width}x{image.height}"
                )
            image = _fit(as_rgb(image), size)
        output[index] = np.asarray(as_rgb(image))

    _each(files, read)
    return torch.from_numpy(output).permute(0, 3, 1, 2).contiguous()


def common_size(files: Sequence[Path]) -> Size:
    """The most frequent height and width, read from the files' headers alone."""
    sizes = _each(files, lambda _, image: (image.height, image.width))
    counts = Counter(sizes)
    return max(counts, key=lambda size: (counts[size], size[::-1]))


def _each(files: Sequence[Path], work: Callable[[int, Image.Image], T]) -> list[T]:
    def block(start: int) -> list[T]:
        return [one(index) for index in range(start, min(start + CHUNK, len(files)))]

    def one(index: int) -> T:
        with opened(files[index]) as image:
            return work(index, image)

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            blocks = list(pool.map(block, range(0, len(files), CHUNK)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [value for values in blocks for value in values]


def _fit(image: Image.Image, size: Size) -> Image.Image:
    top, left, height, width = central((image.height, image.width), size)
    image = image.crop((left, top, left + width, top + height))
    height, width = cover((height, width), size)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size[1]) // 2, (height - size[0]) // 2
    return scaled.crop((left, top, left + size[1], top + size[0]))
