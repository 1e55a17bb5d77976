"""Images that are read from files when they are asked for."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.trees import smooth, write_files
from lcprune.data import ImageFiles, first_pixels
from lcprune.data._pixels import evaluated
from lcprune.data._sets import FileNames
from lcprune.errors import DataError

SIZES = [(40, 33), (60, 50), (35, 70), (36, 36), (90, 40)] * 7
RESIZED, SIZE = (35, 35), (32, 32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_files(tmp_path_factory.mktemp("files"), SIZES)


def image_files(files: list[Path], workers: int = 0) -> ImageFiles:
    return ImageFiles(files, torch.arange(len(files)), 32, resized=35, workers=workers)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 7, 17, 34, 35, 100])
def test_batches_hold_every_image_in_order(files: list[Path], workers: int, size: int) -> None:
    if workers and size == 1:
        files = files[:18]
    images = image_files(files, workers)
    batches = list(images.batches(size))
    assert [len(labels) for _, labels in batches[:-1]] == [size] * (len(batches) - 1)
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(len(files)))
    for pixels, labels in batches:
        assert pixels.dtype == torch.uint8
        expected = torch.stack([evaluated(files[i], RESIZED, SIZE) for i in labels])
        assert torch.equal(pixels, expected)


def test_in_memory_and_subsets_are_the_same_images(files: list[Path]) -> None:
    images = image_files(files)
    held = images.in_memory()
    assert images.shape == held.shape == (3, 32, 32)
    chosen = torch.tensor([20, 3, 3, 9])
    part = images.subset(chosen)
    assert len(part) == 4
    assert part.labels.tolist() == chosen.tolist()
    assert torch.equal(part.in_memory().pixels, held.pixels[chosen])
    assert torch.equal(part.subset(torch.tensor([3])).in_memory().pixels, held.pixels[[9]])
    assert torch.equal(first_pixels(images, 2), held.pixels[:2])
    assert len(first_pixels(images, 99)) == len(files)


def test_too_much_for_memory_is_refused(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcprune.data._sets.MAX_BYTES", len(files) * 32 * 32 * 3 - 1)
    with pytest.raises(DataError, match="35 images of 32x32 take"):
        image_files(files).in_memory()
    assert len(image_files(files[1:]).in_memory()) == len(files) - 1


@pytest.mark.parametrize(
    ("labels", "size", "resized", "message"),
    [
        (torch.zeros(34, dtype=torch.int64), 32, None, r"labels: expected int64 \(35,\)"),
        (torch.zeros(35), 32, None, r"labels: expected int64 \(35,\), got torch.float32"),
        (torch.zeros(35, dtype=torch.int64), 0, None, "size is 0, expected an integer from 1"),
        (torch.zeros(35, dtype=torch.int64), 32, (40, 31), r"\(40, 31\) >= \(32, 32\)"),
    ],
)
def test_what_does_not_fit(
    files: list[Path], labels: torch.Tensor, size: int, resized: object, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        ImageFiles(files, labels, size, resized=resized)  # type: ignore[arg-type]


def test_without_torchvision(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchvision.transforms.v2", None)
    with pytest.raises(DataError, match=r"pip install 'lcprune\[vision\]'"):
        image_files(files)


def fingerprint(images: ImageFiles) -> str:
    digest = hashlib.sha256()
    images.digest(digest)
    return digest.hexdigest()


def test_the_fingerprint_sees_names_lengths_labels_and_sizes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "a").mkdir(parents=True)
    smooth(0, (40, 40)).save(first / "a" / "0.png")
    smooth(1, (50, 40)).save(first / "1.png")
    shutil.copytree(first, second)

    def of(root: Path, *, names: tuple[str, ...] = ("a/0.png", "1.png"), size: int = 32) -> str:
        labels = torch.arange(len(names))
        return fingerprint(ImageFiles([root / name for name in names], labels, size, workers=0))

    base = of(first)
    assert of(second) == base  # wherever the tree lies
    seen = {base, of(first, size=31), of(first, names=("1.png", "a/0.png"))}
    (second / "1.png").rename(second / "2.png")
    seen.add(of(second, names=("a/0.png", "2.png")))
    (second / "2.png").rename(second / "1.png")
    assert of(second) == base
    with (second / "1.png").open("ab") as file:
        file.write(b"\0")
    seen.add(of(second))
    assert len(seen) == 5
    (second / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.png: can't be read as an image: it is empty"):
        of(second)
    (second / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: can't be read"):
        fingerprint(ImageFiles(FileNames(second, ["1.png"]), torch.tensor([0]), 32))


name = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.lists(name.filter(lambda n: n not in (".", "..")), min_size=1, max_size=3)))
def test_paths_come_back_as_they_were(parts: list[list[str]]) -> None:
    files = [Path("/somewhere", *part) for part in parts]
    names = FileNames.of(files)
    assert list(names) == files
    assert list(names[1:]) == files[1:]
    assert [names.root / part.decode() for part in names.relative()] == files
