"""Image files of every format that is read, and what may have become of them on their way."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, features

from data.trees import smooth

TIFF_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "zstd", "lzma")
CCITT = ("group3", "group4", "tiff_ccitt")


@cache
def samples() -> dict[str, bytes]:
    """Whole files by a name of their kind, which begins with the format's."""
    image = smooth(1, (40, 50))
    grey, palette, ink = image.convert("L"), image.quantize(200), image.convert("CMYK")
    layers, bits = image.convert("RGBA"), image.convert("1")
    layers.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    several: dict[str, Any] = {"save_all": True, "append_images": [smooth(2, (40, 50))]}
    found = {
        "JPEG": (image, {}),
        "JPEG progressive": (image, {"progressive": True}),
        "JPEG ink": (ink, {}),
        "JPEG exif": (image, {"exif": exif}),
        "PNG": (image, {"exif": exif}),
        "PNG palette": (palette, {"transparency": bytes(range(200))}),
        "PNG layers": (layers, {}),
        "PNG deep": (deep, {}),
        "PNG bits": (bits, {}),
        "PNG animated": (image, several),
        "GIF": (palette, {}),
        "GIF animated": (image, several),
        "WEBP": (image, {}),
        "WEBP lossless": (layers, {"lossless": True}),
        "WEBP animated": (image, several),
        "BMP": (image, {}),
        "BMP palette": (palette, {}),
        "BMP layers": (layers, {}),
        "PPM": (image, {}),
        "PPM grey": (grey, {}),
        "PPM bits": (bits, {}),
        "TIFF": (image, {}),
        "TIFF deep": (deep, {}),
        "TIFF several": (image, several),
        "MPO": (image, several),
        **{f"TIFF {how}": (image, {"compression": how}) for how in TIFF_COMPRESSIONS},
        **{f"TIFF {how}": (bits, {"compression": how}) for how in CCITT},
    }
    if features.check("avif"):
        found |= {"AVIF": (image, {}), "AVIF layers": (layers, {})}
    return {kind: _saved(picture, kind, how) for kind, (picture, how) in found.items()}


def _saved(image: Image.Image, kind: str, how: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind.split()[0], **how)
    return buffer.getvalue()


EXTREMES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 20_000, 0x4000_0000)


def damage(content: bytes, choose: random.Random) -> bytes:
    """The bytes cut off, changed anywhere or in front, moved, lost, or with an extreme number."""
    found = bytearray(content)
    start, other = (choose.randrange(len(found)) for _ in range(2))
    early, length = choose.randrange(min(len(found), 300)), choose.randrange(1, 80)
    match choose.randrange(8):
        case 0:
            del found[start:]
        case 1:
            for _ in range(length // 8 + 1):
                found[choose.randrange(len(found))] = choose.randrange(256)
        case 2:
            found[early] = choose.randrange(256)
        case 3:
            found[start : start + length] = found[other : other + length]
        case 4:
            found[early : early + 4] = struct.pack(
                choose.choice("<>") + "I", choose.choice(EXTREMES)
            )
        case 5:
            del found[start : start + length]
        case 6:
            found[early:early] = choose.randbytes(length)
        case _:
            found = bytearray(choose.choice([*samples().values()])[:early]) + found[other:]
    return bytes(found)


def damaged(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` damaged files, every kind in turn."""
    choose = random.Random(seed)
    kinds = list(samples().items())
    for number in range(count):
        kind, content = kinds[number % len(kinds)]
        yield kind, damage(content, choose)


def huge(width: int, height: int) -> dict[str, bytes]:
    """Small files that say they hold so many pixels, by format."""
    png = bytearray(samples()["PNG"])
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    bmp = bytearray(samples()["BMP"])
    bmp[18:26] = struct.pack("<ii", width, height)
    gif = bytearray(samples()["GIF"])
    gif[6:10] = struct.pack("<HH", min(width, 0xFFFF), min(height, 0xFFFF))
    tiff = bytearray(samples()["TIFF"])
    for tag, size in ((256, width), (257, height)):
        entry = tiff.index(struct.pack("<HHI", tag, 4, 1))
        tiff[entry + 8 : entry + 12] = struct.pack("<I", size)
    return {
        "PNG": bytes(png),
        "BMP": bytes(bmp),
        "GIF": bytes(gif),
        "TIFF": bytes(tiff),
        "PPM": f"P6 {width} {height} 255\n".encode(),
    }
