"""Image files as strangers send them: which formats are read, how large, and what may be wrong."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from lcprune._files import open_regular
from lcprune._text import one_line
from lcprune.errors import DataError, LcpruneError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""What is read, whatever a file is called.

Pillow has three times as many, of which some start another program (EPS) or read further files.
"""

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
)
"""The names by which files of a folder are taken for images."""

MAX_PIXELS = 89_478_485
"""Pixels of the largest image that is read: 256 MiB of RGB, also where Pillow begins to warn."""

MAX_FILE_BYTES = 512 * 2**20
"""Bytes of the largest file that is read: more than such an image takes with four bytes a pixel."""

_PLUGINS = ("Jpeg", "Png", "WebP", "Bmp", "Gif", "Tiff", "Ppm", "Avif")

# Pillow logs some of what it finds; without a handler Python prints that to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """The image in a file, its header read; ``DataError`` names the file where it can't be read.

    What the file holds decides, not its name. Whatever goes wrong with the image inside the block
    counts too, since files are decoded late and decoders raise anything on damaged ones. The
    file is opened as ``open_regular`` does it.
    """
    with open_regular(file, DataError, limit=MAX_FILE_BYTES) as content:
        try:
            with Image.open(content, formats=_readable()) as image:
                _check_pixels(file, image)
                if image.format == "TIFF":
                    _quiet_libtiff()
                yield image
        except LcpruneError:
            raise
        except Image.DecompressionBombError as error:
            raise _too_large(file) from error
        except Exception as error:
            raise DataError(
                f"{file}: can't be read as an image: {_reason(content, error)}"
            ) from error


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


P = ParamSpec("P")
T = TypeVar("T")


def quietly(work: Callable[P, T]) -> Callable[P, T]:
    """``work`` without Pillow's warnings, of odd metadata or of what becomes our error."""

    @wraps(work)
    def quiet(*args: P.args, **kwargs: P.kwargs) -> T:
        # These filters are those of all threads, also of such as work on files meanwhile.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            return work(*args, **kwargs)

    return quiet


@cache
def _readable() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow knows."""
    for name in _PLUGINS:
        with suppress(ImportError):
            importlib.import_module(f"PIL.{name}ImagePlugin")
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


@cache
def _quiet_libtiff() -> None:
    """Have Pillow's libtiff print nothing: it writes to stderr itself what Pillow then raises."""
    # Found among what the extension is linked with, on Linux and macOS.
    with suppress(Exception):
        library = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


def _check_pixels(file: Path, image: Image.Image) -> None:
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise _too_large(file, pixels)
    if pixels == 0:
        raise DataError(f"{file}: can't be read as an image: it has no pixels")


def _too_large(file: Path, pixels: int | None = None) -> DataError:
    got = "" if pixels is None else f", got {pixels / 1e6:.0f}"
    return DataError(f"{file}: expected an image of at most {MAX_PIXELS / 1e6:.0f} megapixels{got}")


def _reason(content: BinaryIO, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        if os.fstat(content.fileno()).st_size == 0:
            return "it is empty"
        return f"of no known format, expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    text = getattr(error, "strerror", None) or one_line(error)
    return str(text) or type(error).__name__
