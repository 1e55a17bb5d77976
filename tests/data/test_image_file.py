"""Files of images that are damaged, hostile, or no images: one line, or an image."""

from __future__ import annotations

import io
import logging
import os
import socket
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from data.damaged_images import damaged, huge, samples
from data.trees import smooth
from lcprune.data import ImageFiles
from lcprune.data._image_file import FORMATS, MAX_FILE_BYTES, as_rgb, opened
from lcprune.data._pixels import common_size, decode, evaluated, resized_crop
from lcprune.data._readers import read_batches
from lcprune.errors import DataError

SIZE = (32, 32)


def names(message: str, file: Path) -> bool:
    """Whether the message is one line that begins with the file."""
    return message.startswith((f"{file}: ", f"can't read {file}: ")) and message.isprintable()


def one_line_of(file: Path) -> str:
    """The error of a file, which is the same of everything that reads it."""
    with pytest.raises(DataError) as caught:
        evaluated(file, SIZE, SIZE)
    assert names(str(caught.value), file)
    return str(caught.value)


@contextmanager
def nothing_is_said(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No warning, no log record that Python would print, nothing on stderr, by whatever library."""
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr() == ("", "")


def outcomes(folder: Path, count: int, seed: int) -> Counter[tuple[str, bool]]:
    """How often damaged files of each kind were still images, and how often not."""
    file = folder / "damaged.jpg"
    generator = np.random.default_rng(seed)
    seen: Counter[tuple[str, bool]] = Counter()
    messages: set[str] = set()
    for number, (kind, content) in enumerate(damaged(count, seed)):
        file.write_bytes(content)
        try:
            if number % 3 == 0:
                assert decode([file], SIZE, resize=True).shape == (1, 3, *SIZE)
            elif number % 3 == 1:
                assert next(ImageFiles([file], ONE, SIZE, workers=0).batches(1))[0].shape == (
                    (1, 3, *SIZE)
                )
            else:
                read = partial(resized_crop, size=SIZE, area=(0.1, 1.0), generator=generator)
                assert next(read_batches(read, [file], [1], 0)).shape == (1, 3, *SIZE)
            seen[kind, True] += 1
        except DataError as error:
            seen[kind, False] += 1
            messages.add(str(error))
    assert all(names(message, file) for message in messages), messages
    return seen


ONE = torch.tensor([0])


def test_damaged_images_of_all_formats(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with nothing_is_said(capfd), logging_as_python_has_it():
        seen = outcomes(tmp_path, 40 * len(samples()), 0)
    assert seen.total() == 40 * len(samples())
    for kind in samples():  # the damage is neither none nor all there is
        assert seen[kind, False] > 0, kind
    assert sum(seen[kind, True] for kind in samples()) > seen.total() / 10


@contextmanager
def logging_as_python_has_it() -> Iterator[None]:
    """Without pytest's handlers, so that what nobody handles goes to stderr."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = handlers


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(1, 9))
def test_many_damaged_images(tmp_path: Path, capfd: pytest.CaptureFixture[str], seed: int) -> None:
    with nothing_is_said(capfd), logging_as_python_has_it():
        assert outcomes(tmp_path, 1000, seed).total() == 1000


def test_in_reader_processes_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = []
    for number, (_, content) in enumerate(damaged(40, 77)):
        files += [tmp_path / f"{number}.png", tmp_path / f"{number}-whole.png"]
        files[-2].write_bytes(content)
        smooth(number, (40, 40)).save(files[-1])
    images = ImageFiles(files, torch.zeros(len(files), dtype=torch.int64), SIZE, workers=2)
    with nothing_is_said(capfd), pytest.raises(DataError, match=f"^{tmp_path}/[0-9]+.png: .*$"):
        list(images.batches(8))


def test_every_listed_format_is_read_whatever_its_name(tmp_path: Path) -> None:
    assert {kind.split()[0] for kind in samples()} - {"MPO"} >= set(FORMATS) - {"AVIF"}
    for number, content in enumerate(samples().values()):
        file = tmp_path / f"{number}.eps"
        file.write_bytes(content)
        assert evaluated(file, SIZE, SIZE).shape == (3, *SIZE)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["x.png", "x.eps"])
def test_no_other_format_is_opened_under_any_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "system", started)
    Image.init()
    refused = set()
    for kind in sorted(set(Image.SAVE) - set(FORMATS) - {"MPO", "DIB"}):
        file, buffer = tmp_path / name, io.BytesIO()
        try:
            smooth(0, (32, 32)).save(buffer, kind)
        except (OSError, ValueError, NotImplementedError):  # needs more than an image
            continue
        file.write_bytes(buffer.getvalue())
        refused.add(kind)
        assert "of no known format, expected JPEG, PNG" in one_line_of(file), kind
        with pytest.raises(DataError):
            common_size([file])
    assert refused >= {"EPS", "ICO", "PCX", "TGA", "SGI"}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_header_of_huge_dimensions_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    for side in (9_500, 20_000, 60_000, 2_000_000):
        for content in huge(side, side).values():
            file.write_bytes(content)
            message = one_line_of(file)
            assert "expected an image of at most 89 megapixels" in message
            with pytest.raises(DataError, match=r"huge\.png: "):
                common_size([file])


@pytest.mark.parametrize("pixels", [(0, 0), (0, 9), (9, 0)])
def test_an_image_without_pixels(tmp_path: Path, pixels: tuple[int, int]) -> None:
    file = tmp_path / "nothing.png"
    for kind, content in huge(*pixels).items():
        if kind != "GIF":  # which is as large as its frame, whatever is said in front
            file.write_bytes(content)
            one_line_of(file)


def test_a_file_of_a_terabyte(tmp_path: Path) -> None:
    file = tmp_path / "endless.webp"
    content = samples()["WEBP"]
    file.write_bytes(content)
    os.truncate(file, MAX_FILE_BYTES + 1)
    assert "expected at most 536870912 bytes, got 536870913" in one_line_of(file)
    os.truncate(file, 2**40)
    assert "got 1099511627776" in one_line_of(file)


def test_what_is_no_ordinary_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    pipe, plug, link = tmp_path / "pipe.png", tmp_path / "plug.png", tmp_path / "link.png"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(plug))
        for file in (pipe, link, Path("/dev/zero"), tmp_path):
            assert "it is not an ordinary file" in one_line_of(file)
        one_line_of(plug)
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert "symbolic links" in one_line_of(loop)
    assert "too long" in one_line_of(tmp_path / ("x" * 300))
    with pytest.raises(DataError, match="null byte"):
        evaluated(tmp_path / "a\0b.png", SIZE, SIZE)


def test_truncated_images_are_read_by_those_who_say_so_to_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "half.png"
    content = samples()["PNG"]
    file.write_bytes(content[: len(content) * 2 // 3])
    one_line_of(file)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert evaluated(file, SIZE, SIZE).shape == (3, *SIZE)


def test_a_bomb_in_a_text_chunk_or_a_profile(tmp_path: Path) -> None:
    """What inflates a thousandfold beside the pixels is not held in memory."""
    png, file = samples()["PNG"], tmp_path / "bomb.png"
    file.write_bytes(png)
    evaluated(file, SIZE, SIZE)  # imports are not counted
    bomb = zlib.compress(b"x" * 2**28)
    for name, body in ((b"zTXt", b"a\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb)):
        crc = zlib.crc32(name + body).to_bytes(4, "big")
        file.write_bytes(png[:33] + len(body).to_bytes(4, "big") + name + body + crc + png[33:])
        tracemalloc.start()
        try:
            with suppress(DataError):
                evaluated(file, SIZE, SIZE)
            assert tracemalloc.get_traced_memory()[1] < 2**26
        finally:
            tracemalloc.stop()


def test_errors_of_ours_pass_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    smooth(0, (32, 32)).save(file)
    with pytest.raises(DataError, match=r"^expected 32x32$"), opened(file):
        raise DataError("expected 32x32")
    with pytest.raises(KeyboardInterrupt), opened(file):
        raise KeyboardInterrupt
    with opened(file) as image:
        assert as_rgb(image) is image


def test_libtiff_prints_nothing_of_itself(tmp_path: Path) -> None:
    """It would write to stderr beside Python: tried where nothing has been set before."""
    file = tmp_path / "a.tif"
    content = bytearray(samples()["TIFF tiff_adobe_deflate"])
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    program = (
        "import sys\nfrom pathlib import Path\nfrom lcprune.data._pixels import evaluated\n"
        "try:\n    evaluated(Path(sys.argv[1]), (32, 32), (32, 32))\n"
        "except Exception as error:\n    print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, file], capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith(f"{file}: can't be read as an image: ")
    assert ended.stderr == ""
