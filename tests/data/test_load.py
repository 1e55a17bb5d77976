"""Data sets by name, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.trees import picture, write_tree
from lcprune.data import Data, ImageFiles, Images, load_data
from lcprune.errors import DataError


def error_of(spec: str) -> str:
    with pytest.raises(DataError) as caught:
        load_data(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_digits_are_complete_stratified_and_the_same_every_time() -> None:
    data = load_data("digits")
    assert len(data.train) + len(data.test) == 1797
    share = torch.bincount(data.test.labels) / torch.bincount(
        torch.cat([data.train.labels, data.test.labels])
    )
    assert bool((share - 0.2).abs().max() < 0.01)
    assert int(data.train.pixels.max()) == 255
    assert load_data("digits").fingerprint == data.fingerprint
    normal = data.normalise(data.train.pixels)
    assert abs(float(normal.mean())) < 0.02
    assert abs(float(normal.std()) - 1) < 0.02


def test_cifar_tree_is_read_in_the_order_of_classes_and_names(tmp_path: Path) -> None:
    write_tree(tmp_path, classes=("bee", "ant"))
    data = load_data(f"cifar10:{tmp_path}")
    assert data.classes == ("ant", "bee")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for index, name in enumerate(["ant/0", "ant/1", "ant/2", "bee/0", "bee/1", "bee/2"]):
        with Image.open(tmp_path / "train" / f"{name}.png") as image:
            expected = np.asarray(image)
        assert np.array_equal(data.train.pixels[index].permute(1, 2, 0).numpy(), expected)


def write_binary(folder: Path, count: int = 4) -> np.ndarray:
    generator = np.random.default_rng(0)
    records = generator.integers(0, 256, (6, count, 3073), dtype=np.uint8)
    records[:, :, 0] %= 10
    for i in range(5):
        records[i].tofile(folder / f"data_batch_{i + 1}.bin")
    records[5].tofile(folder / "test_batch.bin")
    return records


def test_cifar_binary(tmp_path: Path) -> None:
    records = write_binary(tmp_path)
    data = load_data(f"cifar10:{tmp_path}")
    assert (len(data.train), len(data.test)) == (20, 4)
    assert data.train.labels.tolist() == records[:5, :, 0].reshape(-1).tolist()
    red = data.train.pixels[5, 0].numpy()
    assert np.array_equal(red, records[1, 1, 1:1025].reshape(32, 32))


def test_cifar_binary_that_is_damaged(tmp_path: Path) -> None:
    records = write_binary(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    assert "data_batch_3.bin" in error_of(f"cifar10:{tmp_path}")
    (tmp_path / "data_batch_3.bin").write_bytes(records[2].tobytes()[:-1])
    assert "multiple of 3073" in error_of(f"cifar10:{tmp_path}")
    records[2, 0, 0] = 10
    records[2].tofile(tmp_path / "data_batch_3.bin")
    assert "label 10, expected 0 to 9" in error_of(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("split", ["test", "val"])
def test_image_folder(tmp_path: Path, split: str) -> None:
    write_tree(tmp_path, splits=("train", split), size=(20, 12))
    data = load_data(f"imagefolder:{tmp_path}")
    assert data.input_shape == (3, 12, 20)
    assert (len(data.train), len(data.test)) == (6, 6)


def test_images_of_another_size_are_scaled_and_cut_to_the_commonest(tmp_path: Path) -> None:
    write_tree(tmp_path, size=(20, 12))
    wide = Image.new("RGB", (80, 24), (255, 0, 0))
    wide.paste((0, 0, 255), (20, 0, 60, 24))
    wide.save(tmp_path / "train" / "ant" / "0.png")
    Image.new("L", (7, 5), 128).save(tmp_path / "train" / "ant" / "1.png")
    data = load_data(f"imagefolder:{tmp_path}")
    assert data.input_shape == (3, 12, 20)
    blue = data.train.pixels[0][:, :, 2:-2].permute(1, 2, 0).reshape(-1, 3)
    assert bool((blue == torch.tensor([0, 0, 255], dtype=torch.uint8)).all())
    assert bool((data.train.pixels[1] == 128).all())


def test_cifar_images_of_another_size_are_refused(tmp_path: Path) -> None:
    write_tree(tmp_path)
    picture(0, (31, 32)).save(tmp_path / "test" / "bee" / "1.png")
    message = error_of(f"cifar10:{tmp_path}")
    assert "bee/1.png: expected 32x32 pixels, got 31x32" in message


@pytest.mark.parametrize("kind", ["cifar10", "imagefolder"])
def test_trees_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    spec = f"{kind}:{tmp_path}"
    assert "expected" in error_of(spec)
    write_tree(tmp_path)
    (tmp_path / "train" / "cow").mkdir()
    (tmp_path / "train" / "cow" / "notes.txt").write_text("no image")
    assert "cow: no images in this class folder" in error_of(spec)
    (tmp_path / "train" / "cow" / "notes.txt").unlink()
    (tmp_path / "train" / "cow").rmdir()
    extra = tmp_path / "test" / "cow"
    extra.mkdir()
    picture(0).save(extra / "0.png")
    assert "'cow' is not among the training images" in error_of(spec)
    (extra / "0.png").rename(tmp_path / "moved.png")
    extra.rmdir()
    (tmp_path / "test" / "bee").rename(tmp_path / "bee")
    assert "no folder for class 'bee'" in error_of(spec)


@pytest.mark.parametrize("kind", ["cifar10", "imagefolder"])
def test_one_class_only(tmp_path: Path, kind: str) -> None:
    write_tree(tmp_path, classes=("ant",))
    assert "at least two classes, got 'ant' only" in error_of(f"{kind}:{tmp_path}")


@pytest.mark.parametrize("kind", ["cifar10", "imagefolder"])
@pytest.mark.parametrize("kept", [0, 20, 60, -30])
def test_a_truncated_image_is_named(tmp_path: Path, kind: str, kept: int) -> None:
    write_tree(tmp_path)
    victim = tmp_path / "test" / "bee" / "1.png"
    victim.write_bytes(victim.read_bytes()[:kept])
    assert "bee/1.png: can't be read as an image" in error_of(f"{kind}:{tmp_path}")


def test_a_split_that_is_missing(tmp_path: Path) -> None:
    write_tree(tmp_path, splits=("train",))
    assert "val/ or test/" in error_of(f"imagefolder:{tmp_path}")
    assert "test/CLASS" in error_of(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("spec", ["cifar10:/no/such", "imagefolder:/no/such"])
def test_a_root_that_is_missing(spec: str) -> None:
    assert "no such folder" in error_of(spec)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("cifar10", "cifar10:ROOT"),
        ("imagefolder:", "imagefolder:ROOT"),
        ("cifar:/tmp", "did you mean cifar10"),
        ("digit", "did you mean digits"),
        ("mnist", "expected digits"),
        ("", "expected digits"),
    ],
)
def test_unknown_names(spec: str, hint: str) -> None:
    assert hint in error_of(spec)


def test_many_small_images_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path)
    held = load_data(f"imagefolder:{tmp_path}")
    monkeypatch.setattr("lcprune.data.layouts._trees.MEMORY_BYTES", 6 * 32 * 32 * 3 - 1)
    streamed = load_data(f"imagefolder:{tmp_path}")
    assert isinstance(held.train, Images)
    assert isinstance(streamed.train, ImageFiles)
    assert torch.equal(streamed.train.in_memory().pixels, held.train.pixels)
    assert streamed.augmentation == held.augmentation


def test_a_factory(tmp_path: Path) -> None:
    (tmp_path / "sets.py").write_text(
        "import dataclasses\n"
        "from lcprune.data import load_data\n"
        "def made():\n    return dataclasses.replace(load_data('digits'), name='')\n"
        "def wrong():\n    return 3\n"
        "def failing():\n    return open('/no/such/file')\n"
    )
    data = load_data(f"{tmp_path}/sets.py:made")
    assert isinstance(data, Data)
    assert data.name == f"{tmp_path}/sets.py:made"
    assert "expected a Data, got int" in error_of(f"{tmp_path}/sets.py:wrong")
    assert "FileNotFoundError" in error_of(f"{tmp_path}/sets.py:failing")
