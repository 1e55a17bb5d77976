"""One image file becomes the pixels that a network is evaluated or trained on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from lcprune.data._geometry import Box, Size, central, cover, random_box
from lcprune.data._open import as_rgb, opened
from lcprune.data._vision import transforms

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
