"""Folders as strangers send them: each ends in one line, soon, or is read."""

from __future__ import annotations

import io
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.io import savemat

from data.damaged_images import damage
from data.trees import DEVKIT, WNIDS, smooth, write_cub, write_imagenet, write_tree
from lcprune.data import Data, ImageFiles, load_data
from lcprune.errors import DataError

Change = Callable[[Path], None]


def tried(spec: str) -> str:
    """The one line that a data set ends in, or nothing where it loads."""
    try:
        assert isinstance(load_data(spec), Data)
    except DataError as error:
        message = str(error)
    else:
        return ""
    assert message.isprintable()
    assert message
    return message


def error_of(spec: str) -> str:
    message = tried(spec)
    assert message, "it loaded"
    return message


def replaced_by(make: Change) -> Change:
    def change(file: Path) -> None:
        file.unlink()
        make(file)

    return change


def endless(file: Path) -> None:
    file.touch()
    os.truncate(file, 2**41)


SUBSTITUTES: dict[str, Change] = {
    "a pipe": os.mkfifo,
    "a device": lambda file: file.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a loop of links": lambda file: file.symlink_to(file),
    "a link to nowhere": lambda file: file.symlink_to("nowhere"),
    "terabytes": endless,
    "empty": Path.touch,
    "binary": lambda file: file.write_bytes(bytes(range(256)) * 20) and None,
    "zeros": lambda file: file.write_bytes(bytes(5000)) and None,
    "another encoding": lambda file: file.write_bytes("1 ä\n".encode("utf-16")) and None,
    "a long number": lambda file: file.write_text("9" * 10_000 + " 1\n") and None,
    "a long line": lambda file: file.write_text("1 " + "x" * 100_000 + "\n") and None,
    "other digits": lambda file: file.write_text("٣ x\n²  y\n") and None,
    "negative": lambda file: file.write_text("-1 x\n") and None,
}


def cifar10(root: Path) -> list[Path]:
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (root / name).write_bytes(b"\1" + bytes(3072) + b"\2" + bytes(3072))
    return sorted(root.iterdir())


def cifar100(root: Path) -> list[Path]:
    for name in ("train.bin", "test.bin"):
        (root / name).write_bytes(b"\1\2" + bytes(3072) + b"\1\3" + bytes(3072))
    (root / "fine_label_names.txt").write_text("".join(f"thing{i}\n" for i in range(100)))
    return sorted(root.iterdir())


def imagenet(root: Path) -> list[Path]:
    write_imagenet(root, flat=True)
    return sorted((root / DEVKIT).iterdir())


def cub200(root: Path) -> list[Path]:
    return sorted(write_cub(root).glob("*.txt"))


LAYOUTS = {"cifar10": cifar10, "cifar100": cifar100, "imagenet": imagenet, "cub200": cub200}


@pytest.mark.parametrize("substitute", SUBSTITUTES)
@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_file_of_a_layout_is_something_else(tmp_path: Path, kind: str, substitute: str) -> None:
    files = LAYOUTS[kind](tmp_path)
    spec = f"{kind}:{tmp_path}"
    assert tried(spec) == ""
    for file in files:
        content = file.read_bytes()
        replaced_by(SUBSTITUTES[substitute])(file)
        message = error_of(spec)
        # What is no file at all is a layout that is not there; else the file is named.
        assert file.name in message or "expected" in message
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
        file.write_bytes(content)
    assert tried(spec) == ""


@pytest.mark.parametrize("kind", LAYOUTS)
def test_damaged_files_of_a_layout(tmp_path: Path, kind: str) -> None:
    choose = random.Random(0)
    files = LAYOUTS[kind](tmp_path)
    ended = []
    for number in range(120):
        file = files[number % len(files)]
        content = file.read_bytes()
        file.write_bytes(damage(content, choose))
        ended.append(tried(f"{kind}:{tmp_path}"))
        file.write_bytes(content)
    assert sum(map(bool, ended)) > 20


@pytest.mark.parametrize("kind", ["cifar100", "imagenet", "cub200"])
def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path: Path, kind: str) -> None:
    for file in LAYOUTS[kind](tmp_path):
        if file.suffix == ".txt":
            text = file.read_text(encoding="utf-8").replace("\n", "\r\n")
            file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert tried(f"{kind}:{tmp_path}") == ""


@pytest.mark.parametrize(
    "path", ["../../outside.jpg", "/outside.jpg", "002.Laysan/../../../outside.jpg", ".."]
)
def test_a_list_names_no_file_out_of_its_folder(tmp_path: Path, path: str) -> None:
    folder = write_cub(tmp_path)
    smooth(0, (50, 40)).save(tmp_path / "outside.jpg")
    path = str(tmp_path / "outside.jpg") if path == "/outside.jpg" else path
    images = folder / "images.txt"
    images.write_text(f"1 {path}\n" + images.read_text().partition("\n")[2])
    assert "images.txt: image 1 is " in error_of(f"cub200:{tmp_path}")
    assert "no file in images/" in error_of(f"cub200:{tmp_path}")


def matlab(body: bytes, kind: int = 15) -> bytes:
    """A MATLAB file of one element."""
    buffer = io.BytesIO()
    savemat(buffer, {"x": 1})
    head = buffer.getvalue()[:128]
    return head + kind.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body


def test_a_table_that_inflates_a_thousandfold(tmp_path: Path) -> None:
    write_imagenet(tmp_path, flat=True)
    meta = tmp_path / DEVKIT / "meta.mat"
    meta.write_bytes(matlab(zlib.compress(bytes(2**28))))
    assert "meta.mat: expected the devkit's table of synsets" in error_of(f"imagenet:{tmp_path}")


def test_an_image_tree_of_odd_names(tmp_path: Path) -> None:
    names = [
        "a\nb.png",
        "\x1b[31mred.png",
        "[b]x[bold].png",
        "\u202egnp.png",
        "\U0001d54f.png",
        "-x.png",
        "'; ls.png",
    ]
    odd = [*names, os.fsdecode(b"\xff\xfe.png"), "x" * 251 + ".png"]
    write_tree(tmp_path, splits=("train", "val"), classes=("a\nb", os.fsdecode(b"\xff")), count=1)
    for number, name in enumerate(odd):
        smooth(number, (32, 32)).save(tmp_path / "plain.png")
        (tmp_path / "plain.png").rename(tmp_path / "train" / "a\nb" / name)
    data = load_data(f"imagefolder:{tmp_path}")
    assert len(data.train) == len(odd) + 2
    assert len(data.fingerprint) == 64
    for name in odd:
        file = tmp_path / "train" / "a\nb" / name
        content = file.read_bytes()
        file.write_bytes(b"no image")
        assert "of no known format" in error_of(f"imagefolder:{tmp_path}")
        file.write_bytes(content)


def test_loops_and_links_in_an_image_tree(tmp_path: Path) -> None:
    write_tree(tmp_path, splits=("train", "val"))
    spec = f"imagefolder:{tmp_path}"
    before = load_data(spec)
    (tmp_path / "train" / "loop").symlink_to(tmp_path / "train" / "loop")
    assert load_data(spec).classes == before.classes
    (tmp_path / "train" / "bee" / "up").symlink_to(tmp_path)
    assert len(load_data(spec).train) == len(before.train)
    (tmp_path / "train" / "bee" / "up.png").symlink_to(tmp_path)
    assert "up.png: it is not an ordinary file" in error_of(spec)
    (tmp_path / "train" / "bee" / "up.png").unlink()
    os.mkfifo(tmp_path / "val" / "bee" / "pipe.png")
    assert "pipe.png: it is not an ordinary file" in error_of(spec)


def test_a_pipe_among_streamed_images(tmp_path: Path) -> None:
    write_tree(tmp_path, splits=("train", "val"), size=(120, 110))
    data = load_data(f"imagefolder:{tmp_path}")
    assert isinstance(data.train, ImageFiles)
    file = tmp_path / "train" / "ant" / "1.png"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match=r"1\.png: it is not an ordinary file"):
        list(data.train.batches(3))
    with pytest.raises(DataError, match=r"1\.png: .*it is not an ordinary file"):
        _ = load_data(f"imagefolder:{tmp_path}").fingerprint


@pytest.mark.parametrize("kind", ["cifar10", "imagenet", "cub200", "imagefolder"])
@pytest.mark.parametrize(
    "where",
    ["", "~nosuchuser/x", "x" * 300, "a/" * 3000, "a\0b", "\x1b[31m", "\udcff", "/dev/null",
     "/proc/self/mem", ".", "/", "~", "-", "x@9", f"x@{'9' * 5000}"],
    ids=range(15),
)  # fmt: skip
def test_roots_that_hold_no_data(tmp_path: Path, kind: str, where: str,
                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    error_of(f"{kind}:{where}")


def test_sizes_out_of_range(tmp_path: Path) -> None:
    write_tree(tmp_path, splits=("train", "val"))
    for size in ("7", "4097", "99999999", "9" * 200):
        message = error_of(f"imagefolder:{tmp_path}@{size}")
        assert "expected images of 8 to 4096 pixels a side" in message
    for size in ("0", "08", "-8", "8.5", "9" * 5000):
        error_of(f"imagefolder:{tmp_path}@{size}")


@pytest.mark.parametrize("spec", [None, 3, b"digits", ["digits"], "", ":", "x:y:z", "digits:x"])
def test_what_is_no_name_of_data(spec: object) -> None:
    error_of(spec)  # type: ignore[arg-type]


@pytest.mark.thorough
def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    write_tree(tmp_path, splits=("train", "val"), classes=WNIDS[:2], count=1, size=(120, 110))
    (whole,) = (tmp_path / "train" / WNIDS[0]).iterdir()
    for number in range(100_000):
        (tmp_path / "train" / WNIDS[0] / f"{number:x}-é.png").symlink_to(whole)
    data = load_data(f"imagefolder:{tmp_path}")
    assert torch.bincount(data.train.labels).tolist() == [100_001, 1]
