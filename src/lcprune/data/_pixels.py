"""One image file becomes pixels: which part is looked at, and at which scale."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lcprune.data._image_file import as_rgb, opened, quietly
from lcprune.errors import DataError

Size = tuple[int, int]
"""Height and width."""

Box = tuple[int, int, int, int]
"""Top, left, height and width."""

ASPECT = (3 / 4, 4 / 3)
"""Width over height of a random part, at least and at most."""

LONGEST = 8
"""A scaled image is at most so many times as long as what is cut out of it."""

ATTEMPTS = 10


def cover(image: Size, size: Size) -> Size:
    """The size to which an image is scaled so that it just covers ``size``, sides in proportion.

    For a square ``size`` its side is that of the shorter side of the image.
    """
    (height, width), (tall, wide) = image, size
    if tall * width <= wide * height:
        return max(tall, wide * height // width), wide
    return tall, max(wide, tall * width // height)


def central(image: Size, size: Size) -> Box:
    """The middle of an image that is extremely long, else all of it.

    What is left out would not be seen after scaling to cover ``size`` and cutting to the centre;
    scaling it would take memory without bound.
    """
    height, width = image
    tall, wide = cover(image, size)
    kept_height = min(height, math.ceil(height * LONGEST * size[0] / tall))
    kept_width = min(width, math.ceil(width * LONGEST * size[1] / wide))
    return (height - kept_height) // 2, (width - kept_width) // 2, kept_height, kept_width


def random_box(image: Size, area: tuple[float, float], generator: np.random.Generator) -> Box:
    """A random part of an image: its share of the area uniform in ``area``, its shape varied.

    Width over height is log-uniform in ``ASPECT``. Where no such part fits in ``ATTEMPTS`` draws,
    the largest central one of an allowed shape. Source: Szegedy et al. (2015), section 6.
    """
    height, width = image
    for _ in range(ATTEMPTS):
        wanted = height * width * generator.uniform(*area)
        aspect = math.exp(generator.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        wide, tall = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < tall <= height and 0 < wide <= width:
            top = int(generator.integers(height - tall + 1))
            left = int(generator.integers(width - wide + 1))
            return top, left, tall, wide
    aspect = min(max(width / height, ASPECT[0]), ASPECT[1])
    tall = min(height, max(1, round(width / aspect)))
    wide = min(width, max(1, round(height * aspect)))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


SHARP = 2
"""An evaluated JPEG is decoded at least so many times as large as it is looked at."""


def evaluated(file: Path, resized: Size, size: Size) -> Tensor:
    """Pixels, uint8 (3, H, W): scaled until they cover ``resized``, the centre cut to ``size``.

    ``DataError`` names a file that can't be read.
    """
    functional = transforms()
    with opened(file) as image:
        box = central((image.height, image.width), resized)
        scaled = cover(box[2:], resized)
        pixels = functional.pil_to_tensor(_part(image, box, scaled, SHARP))
    pixels = functional.resize(pixels, list(scaled), antialias=True)
    cut: Tensor = functional.center_crop(pixels, list(size))
    return cut


def resized_crop(
    file: Path, size: Size, area: tuple[float, float], generator: np.random.Generator
) -> Tensor:
    """Pixels, uint8 (3, H, W), of a random part of the image, scaled to ``size``.

    ``DataError`` names a file that can't be read.
    """
    functional = transforms()
    with opened(file) as image:
        box = random_box((image.height, image.width), area, generator)
        pixels = functional.pil_to_tensor(_part(image, box, size, 1))
    scaled: Tensor = functional.resize(pixels, list(size), antialias=True)
    return scaled


def shifted(pixels: Tensor, down: int, right: int, fill: tuple[int, ...]) -> Tensor:
    """Pixels, uint8 (C, H, W), moved; what comes in from outside has the colour ``fill``."""
    result = pixels.new_tensor(fill).view(-1, 1, 1).expand(pixels.shape).clone()
    height, width = pixels.shape[1:]
    seen = pixels[:, _span(-down, height), _span(-right, width)]
    result[:, _span(down, height), _span(right, width)] = seen
    return result


def _part(image: Image.Image, box: Box, needed: Size, sharp: int) -> Image.Image:
    """What ``box`` cuts out, in RGB.

    A JPEG is decoded at a half, a quarter or an eighth where its part is still ``sharp`` times as
    large as ``needed``, which takes a fraction of the time and the memory.
    """
    top, left, height, width = box
    before = image.size
    scale = min(1.0, sharp * max(needed[0] / height, needed[1] / width))
    image.draft(None, (math.ceil(scale * image.width), math.ceil(scale * image.height)))
    if image.size != before:
        across, down = image.width / before[0], image.height / before[1]
        left, top = math.floor(left * across), math.floor(top * down)
        width = max(1, min(image.width - left, round(width * across)))
        height = max(1, min(image.height - top, round(height * down)))
    if (width, height) != image.size:
        image = image.crop((left, top, left + width, top + height))
    return as_rgb(image)


def _span(start: int, length: int) -> slice:
    """The part of 0 to ``length`` that is left when it is moved by ``start``."""
    return slice(min(max(start, 0), length), max(min(length + start, length), 0))


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


@quietly
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


def transforms() -> Any:
    """``torchvision.transforms.v2.functional``; ``DataError`` where torchvision is missing."""
    try:
        from torchvision.transforms.v2 import functional
    except ImportError as error:
        raise DataError(
            "images that are read from files while they are used need torchvision: "
            "pip install 'lcprune[vision]'"
        ) from error
    return functional


SMALL = 96
"""Images with no side longer than this are shifted as a whole; of larger ones parts are taken."""


def is_small(size: Size) -> bool:
    """Whether images of this height and width are treated as small ones."""
    return max(size) <= SMALL


def resized_for(size: Size) -> Size:
    """What an image is scaled to cover before its centre is cut to ``size``: 256 for 224."""
    if is_small(size):
        return size
    return round(size[0] * 256 / 224), round(size[1] * 256 / 224)
