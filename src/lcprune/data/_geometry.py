"""Which part of an image is looked at, and at which scale."""

from __future__ import annotations

import math

import numpy as np

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
