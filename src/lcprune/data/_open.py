"""Image files are opened in one place, and whatever is wrong with one is said in one line."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lcprune.errors import DataError

MAX_PIXELS = 89_478_485
"""Pixels of the largest image that is read: 256 MiB of RGB, also where Pillow begins to warn."""

DAMAGED = (OSError, SyntaxError, ValueError, MemoryError, EOFError, OverflowError, struct.error)
"""What Pillow's decoders make of files that are not what they should be."""


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """The image in a file, its header read; ``DataError`` names the file where it can't be read.

    The errors of whatever is done with the image inside count too, since files are read late.
    """
    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(file, image.width * image.height)
            yield image
    except Image.DecompressionBombError as error:
        raise _too_large(file) from error
    except DAMAGED as error:
        reason = _reason(file, error)
        raise DataError(f"{file}: can't be read as an image: {reason}") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB: grey is repeated, transparency dropped, 16 bits become 8.

    An orientation in the EXIF data is not looked at.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")


def _too_large(file: Path, pixels: int | None = None) -> DataError:
    got = "" if pixels is None else f", got {pixels / 1e6:.0f}"
    return DataError(f"{file}: expected an image of at most {MAX_PIXELS / 1e6:.0f} megapixels{got}")


def _reason(file: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is empty" if file.stat().st_size == 0 else "of no known format"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
