"""Folders of images with files that are none, or were damaged."""

# ruff: noqa: E501 (lists of values are read across)

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import struct
import zlib
from pathlib import Path

from fuzzing.command_lines import TINY
from fuzzing.hostile import bytes_of, replace_by
from fuzzing.tries import Ground, Try

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n16 16 scale showpage\n%%EOF\n"


class ImageTrees:
    """The surface."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self._ground = ground
        self._formats = formats()
        self._good = [self._formats["PNG RGB"], self._formats["JPEG RGB"]]

    def make(self, number: int, chance: random.Random, folder: Path) -> Try:
        """The try of this number."""
        kind = number % 12
        if kind == 9:
            return self._binary(chance, folder)
        if kind == 10:
            return self._listed(chance, folder)
        self._tree(folder / "root", chance)
        split, label = chance.choice(("train", "test")), chance.choice(("a", "b"))
        place = folder / "root" / split / label
        path = place / f"z{chance.choice(SUFFIXES)}"
        if kind < 7:
            what = self._image(path, chance)
        elif kind == 7:
            what = f"{path.suffix}: {replace_by(chance, path, self._ground.precious)}"
        else:
            what = self._odd_tree(folder / "root", chance)
        size = chance.choice(("", "", "@8", "@16", "@64", "@100", "@224", "@300"))
        return self._try(f"imagefolder:root{size}", f"{split}, {what}", chance, folder)

    def _try(self, spec: str, what: str, chance: random.Random, folder: Path) -> Try:
        if chance.random() < 0.8:
            return Try(f"load_data({spec!r}), {what}", call=lambda: read_all(spec))
        (folder / "tiny.py").write_text(TINY)
        arguments = ("train", "tiny.py:net", "--data", spec, "--out", "run", "--epochs", "1",
                     "--batch-size", "4", "--train-dtype", "float32", "--device", "cpu")  # fmt: skip
        return Try(f"train on {spec}, {what}", arguments)

    def _tree(self, root: Path, chance: random.Random) -> None:
        for split in ("train", "test"):
            for label in ("a", "b"):
                place = root / split / label
                place.mkdir(parents=True)
                for i in range(2):
                    content = self._good[chance.random() < 0.3]
                    (place / f"{i}.png").write_bytes(content)

    def _image(self, path: Path, chance: random.Random) -> str:
        """One file in a tree of good ones."""
        kind = chance.random()
        name = chance.choice(sorted(self._formats))
        content = self._formats[name]
        if kind < 0.6:
            how, content = bytes_of(chance, content)
        elif kind < 0.7:
            how = "whole"
        elif kind < 0.8:
            how, content = chance.choice(ODD)
            name = ""
        elif kind < 0.9:
            how, content = "a huge size", huge(chance)
            name = ""
        else:
            other = chance.choice(sorted(self._formats))
            at = chance.randrange(1, len(content))
            how, content = f"its end is that of {other}", content[:at] + self._formats[other][at:]
        path.write_bytes(content)
        return f"{path.suffix}: {name} {how}"

    def _odd_tree(self, root: Path, chance: random.Random) -> str:
        """Folders and names that a tree has not."""
        kind = chance.randrange(16)
        good = self._good[0]
        if kind == 0:
            (root / "train" / "[/b]").mkdir()
            (root / "train" / "[/b]" / "0.png").write_bytes(good)
            (root / "test" / "[/b]").mkdir()
            (root / "test" / "[/b]" / "0.png").write_bytes(b"x")
        elif kind == 1:
            name = chance.choice(("\x1b[31mred", "a\nb", "\udce9", "\u202ex", " ", "é" * 100))
            for split in ("train", "test"):
                (root / split / name).mkdir()
                (root / split / name / "\x1b[31m.png").write_bytes(chance.choice((good, b"x")))
        elif kind == 2:
            shutil.rmtree(root / "test")
        elif kind == 3:
            shutil.rmtree(root / "test")
            (root / "test").symlink_to(root / "train")
        elif kind == 4:
            shutil.rmtree(root / "train" / "b")
        elif kind == 5:
            (root / "train" / "c").mkdir()
        elif kind == 6:
            (root / "train" / "b" / "folder.png").mkdir()
        elif kind == 7:
            shutil.rmtree(root / "train" / "b")
            (root / "train" / "b").symlink_to(root / "train")
        elif kind == 8:
            (root / "train" / "b" / "loop").symlink_to(root)
        elif kind == 9:
            shutil.rmtree(root / "train")
            os.mkfifo(root / "train")
        elif kind == 10:
            (root / "train" / "b" / "p.png").symlink_to("/dev/zero")
        elif kind == 11:
            (root / "train" / "b" / "p.png").symlink_to("/proc/self/mem")
        elif kind == 12:
            shutil.rmtree(root)
            root.mkdir()
        elif kind == 13:
            shutil.rmtree(root)
            root.write_text("x")
        elif kind == 14:
            (root / "train" / "b").rename(root / "train" / ".b")
        else:
            (root / "train" / "b" / ("x" * 200 + ".PNG")).write_bytes(good)
        return f"tree by {kind}"

    def _binary(self, chance: random.Random, folder: Path) -> Try:
        """CIFAR's binary files."""
        root = folder / "root"
        hundred = chance.random() < 0.4
        inner = root / chance.choice(
            (".", "cifar-100-binary" if hundred else "cifar-10-batches-bin")
        )
        inner.mkdir(parents=True)
        record = bytes([1, 2] if hundred else [1]) + bytes(3072)
        names = (["train.bin", "test.bin"] if hundred
                 else [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"])  # fmt: skip
        for name in names:
            (inner / name).write_bytes(record * 4)
        if hundred:
            (inner / "fine_label_names.txt").write_text("\n".join(f"c{i}" for i in range(100)))
            names.append("fine_label_names.txt")
        path = inner / chance.choice(names)
        if chance.random() < 0.35:
            how = replace_by(chance, path, self._ground.precious)
        elif chance.random() < 0.4:
            content = chance.choice((
                bytes([255, 255]) + bytes(3072), record * 3 + b"x", b"", record[:-1], record * 2000,
                b"\xff" * 3073, b"\xff" * 3074, "\n".join(["c"] * 100).encode(), b"\x1b[31m\n" * 100,
                "\n".join(f"\x1b[31m{i}" for i in range(100)).encode(), b"\xff\xfe\n" * 100,
            ))  # fmt: skip
            path.write_bytes(content)
            how = f"{len(content)} bytes"
        else:
            how, content = bytes_of(chance, path.read_bytes())
            path.write_bytes(content)
        spec = f"{'cifar100' if hundred else 'cifar10'}:root"
        return self._try(spec, f"{path.name}: {how}", chance, folder)

    def _listed(self, chance: random.Random, folder: Path) -> Try:
        """CUB-200's lists, ImageNet's layout."""
        root = folder / "root"
        if chance.random() < 0.7:
            texts = {
                "classes.txt": "".join(f"{i} {i:03d}.c{i}\n" for i in (1, 2)),
                "images.txt": "".join(
                    f"{i} 00{1 + i % 2}.c{1 + i % 2}/{i}.jpg\n" for i in range(1, 9)
                ),
                "image_class_labels.txt": "".join(f"{i} {1 + i % 2}\n" for i in range(1, 9)),
                "train_test_split.txt": "".join(f"{i} {int(i < 5)}\n" for i in range(1, 9)),
            }
            for i in range(1, 9):
                image = root / "images" / f"00{1 + i % 2}.c{1 + i % 2}" / f"{i}.jpg"
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(self._good[1])
            for name, text in texts.items():
                (root / name).write_text(text)
            path = root / chance.choice(list(texts))
            spec = "cub200:root"
        else:
            for split in ("train", "val"):
                for wnid in ("n01440764", "n01443537"):
                    (root / split / wnid).mkdir(parents=True)
                    for i in range(2):
                        (root / split / wnid / f"{i}.JPEG").write_bytes(self._good[1])
            path = root / chance.choice(("train/n01440764/0.JPEG", "val/n01443537/1.JPEG", "LOC_val_solution.csv",
                                         "ILSVRC2012_validation_ground_truth.txt"))  # fmt: skip
            spec = "imagenet:root"
        kind = chance.random()
        content = path.read_bytes() if path.is_file() else b"x"
        if kind < 0.3:
            how = replace_by(chance, path, self._ground.precious)
        elif kind < 0.7:
            how, content = bytes_of(chance, content)
            path.write_bytes(content)
        else:
            lines = content.decode("latin-1").splitlines() or [""]
            at = chance.randrange(len(lines))
            lines[at] = chance.choice((
                "", "x", "1", "1 2 3", "-1 1", "99999999999999999999 1", "1 99999999999999999999", "1 -1",
                "nan 1", "1 ../../canary/precious.txt", "1 /etc/passwd", "1 \x1b[31m.jpg", "1 [/b].jpg",
                "1 " + "x" * 5000, "1 0", "0 1", "1.0 1", "1 1.5", "\ufeff1 1", "1 a\x00b.jpg", lines[0],
            ))  # fmt: skip
            how = f"line {at} is {lines[at][:30]!r}"
            path.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
        return self._try(spec, f"{path.name}: {how}", chance, folder)


def read_all(spec: str) -> object:
    """Load a data set and read each of its images."""
    from lcprune.data import load_data

    data = load_data(spec)
    for part in (data.train, data.test):
        for pixels, labels in part.batches(64):
            assert len(pixels) == len(labels)
    return data


def formats() -> dict[str, bytes]:
    """A small image in every format and mode that Pillow writes."""
    from PIL import Image

    Image.init()
    found = {}
    for name in sorted(Image.SAVE):
        for mode in ("RGB", "L", "P", "1", "RGBA", "I;16", "CMYK", "F", "LA"):
            image = Image.new(mode, (16, 16))
            with contextlib.suppress(ValueError, TypeError):
                image.putpixel((3, 3), 1)
            buffer = io.BytesIO()
            try:
                more = {"save_all": True, "append_images": [image, image]} if name == "GIF" else {}
                image.save(buffer, format=name, **more)
            except Exception:  # that format has no such mode, or no encoder here
                continue
            found[f"{name} {mode}"] = buffer.getvalue()
            if name not in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "AVIF"):
                break
    return found


def png(width: int, height: int, data: bytes = b"", chunk: bytes = b"") -> bytes:
    """A PNG with a header that says what it is told."""

    def part(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", header)
        + chunk
        + part(b"IDAT", data)
        + part(b"IEND", b"")
    )


def huge(chance: random.Random) -> bytes:
    """A file of few bytes that says it is a very large image."""
    side = chance.choice((0, 2**15, 2**16 - 1, 2**20, 2**31 - 1, 2**32 - 1))
    other = chance.choice((0, 1, 16, side))
    bomb = zlib.compress(bytes(10**7))
    return chance.choice((
        png(side, other, zlib.compress(b"")), png(side, other, bomb), png(12_000, 12_000, bomb),
        b"P6\n%d %d\n255\n" % (side, other), b"P5 %d %d 65535 " % (side, other), b"P6\n" + b"9" * 5000,
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 70, 0, 0, 54, 40, min(side, 2**31 - 1), -1, 1, 24, 0, 0, 0, 0, 0, 0),
        b"GIF89a" + struct.pack("<HHBBB", side % 65536, other % 65536, 0x80, 0, 0) + bytes(6) + b";",
        png(16, 16, zlib.compress(bytes(16 * 49)),
            struct.pack(">I", 2**31) + b"tEXt" + b"a"),
        png(16, 16, zlib.compress(bytes(16 * 49)), _text_bomb()),
    ))  # fmt: skip


def _text_bomb() -> bytes:
    content = b"x\0\0" + zlib.compress(bytes(10**8))
    return (
        struct.pack(">I", len(content))
        + b"zTXt"
        + content
        + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    )


ODD: tuple[tuple[str, bytes], ...] = (
    ("EPS", EPS),
    ("EPS with a preview", b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 30, len(EPS), 0, 0, 0, 0, 65535) + EPS),
    ("PostScript", b"%!PS\nshowpage\n"),
    ("PDF", b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF"),
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'),
    ("zip", b"PK\x03\x04" + bytes(100)),
    ("HTML", b"<html>"),
    ("JPEG of its start", b"\xff\xd8\xff"),
    ("JPEG of markers", b"\xff\xd8" + b"\xff\xe1\xff\xff" * 500 + b"\xff\xd9"),
    ("TIFF of a loop", b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 0) + struct.pack("<I", 8)),
    ("TIFF of many tags", b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(12 * 100)),
    ("GIF of its start", b"GIF89a"),
    ("WEBP of its start", b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff"),
    ("AVIF of its start", b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00avifmif1miaf" + bytes(60)),
    ("AVIF of many boxes", b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00avifmif1" + b"\xff\xff\xff\xffmeta" * 200),
    ("ICO of many", b"\x00\x00\x01\x00\xff\xff" + bytes(16 * 20)),
    ("FLI", struct.pack("<IHHHHHH", 128, 0xAF11, 1, 16, 16, 8, 3) + bytes(200)),
    ("PSD", b"8BPS\x00\x01" + bytes(6) + b"\x00\x03" + struct.pack(">II", 16, 16) + bytes(40)),
    ("DCX", struct.pack("<I", 0x3ADE68B1) + struct.pack("<I", 12) * 3 + bytes(200)),
    ("FITS", b"SIMPLE  =                    T" + b" " * 3000),
    ("XPM", b'/* XPM */\nstatic char *x[] = {"16 16 999999999 1",'),
    ("WMF", b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(100)),
    ("MPEG", b"\x00\x00\x01\xb3" + bytes(50)),
    ("GRIB", b"GRIB\x00\x00\x00\x01" + bytes(20)),
    ("text", b"hello"), ("nothing", b""), ("line end", b"\n"), ("zeros", bytes(10_000)),
)  # fmt: skip
