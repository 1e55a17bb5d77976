"""The official layouts of published data sets, and what can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.trees import DEVKIT, WNIDS, picture, smooth, write_cub, write_imagenet, write_tree
from lcprune.data import Augmentation, Data, ImageFiles, Images, load_data
from lcprune.errors import DataError

TRUTH = DEVKIT / "ILSVRC2012_validation_ground_truth.txt"


def error_of(spec: str) -> str:
    with pytest.raises(DataError) as caught:
        load_data(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_cifar100(folder: Path, count: int = 200) -> np.ndarray:
    generator = np.random.default_rng(0)
    records = generator.integers(0, 256, (2, count, 3074), dtype=np.uint8)
    records[:, :, 0] = 200  # the coarse label is not looked at
    records[:, :, 1] = np.arange(count) % 100
    records[0].tofile(folder / "train.bin")
    records[1].tofile(folder / "test.bin")
    names = "".join(f"thing_{i:02}\n" for i in range(100))
    (folder / "fine_label_names.txt").write_text(names + "\n")
    return records


@pytest.mark.parametrize("inside", ["", "cifar-100-binary"])
def test_cifar100_binary(tmp_path: Path, inside: str) -> None:
    (tmp_path / inside).mkdir(exist_ok=True)
    records = write_cifar100(tmp_path / inside)
    data = load_data(f"cifar100:{tmp_path}")
    assert data.name == "cifar100"
    assert data.classes[7] == "thing_07"
    assert data.train.labels.tolist() == records[0, :, 1].tolist()
    assert isinstance(data.test, Images)
    blue = data.test.pixels[5, 2].numpy()
    assert np.array_equal(blue, records[1, 5, -1024:].reshape(32, 32))


def test_cifar100_binary_that_is_damaged(tmp_path: Path) -> None:
    spec = f"cifar100:{tmp_path}"
    records = write_cifar100(tmp_path)
    records[1, 3, 1] = 100
    records[1].tofile(tmp_path / "test.bin")
    assert "test.bin: label 100, expected 0 to 99" in error_of(spec)
    (tmp_path / "test.bin").write_bytes(b"x" * 3073)
    assert "test.bin: 3073 bytes, expected a multiple of 3074" in error_of(spec)
    (tmp_path / "test.bin").unlink()
    assert "test.bin: it is missing" in error_of(spec)
    (tmp_path / "fine_label_names.txt").write_text("apple\nbee\n")
    assert "fine_label_names.txt: expected 100 different names, got 2" in error_of(spec)
    (tmp_path / "fine_label_names.txt").unlink()
    assert "fine_label_names.txt: it is missing" in error_of(spec)


def test_cifar100_tree(tmp_path: Path) -> None:
    write_tree(tmp_path, classes=tuple(f"thing_{i:02}" for i in range(11)), count=1)
    assert load_data(f"cifar100:{tmp_path}").input_shape == (3, 32, 32)
    assert "expected at most 10 classes, got 11" in error_of(f"cifar10:{tmp_path}")


def test_pickles_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").touch()
    assert "CIFAR's pickled version, get the binary version" in error_of(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("flat", [False, True])
def test_imagenet(tmp_path: Path, flat: bool) -> None:
    labels = write_imagenet(tmp_path, flat=flat)
    data = load_data(f"imagenet:{tmp_path}")
    assert data.classes == WNIDS
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == labels
    assert isinstance(data.test, ImageFiles)
    assert data.test.files[0].name == f"ILSVRC2012_val_{1 if flat else 2:08}.JPEG"
    assert (data.input_shape, data.test.resized) == ((3, 224, 224), (256, 256))
    assert data.augmentation == Augmentation(crop=0, flip=True, area=(0.08, 1.0))


def test_some_of_the_validation_images_are_joined_by_their_number(tmp_path: Path) -> None:
    labels = write_imagenet(tmp_path, flat=True)
    (tmp_path / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    data = load_data(f"imagenet:{tmp_path}")
    assert data.test.labels.tolist() == [labels[0], *labels[2:]]


def test_imagenet_with_something_missing_or_damaged(tmp_path: Path) -> None:
    spec = f"imagenet:{tmp_path}"
    write_imagenet(tmp_path, flat=True)
    truth = (tmp_path / TRUTH).read_text()
    (tmp_path / TRUTH).write_text(truth.replace("4", "").replace("1", "9", 1))
    assert "label 9 is none of those in meta.mat" in error_of(spec)
    (tmp_path / TRUTH).write_text("4\n" * 4)
    assert "its class n09999999 is not in" in error_of(spec)
    (tmp_path / TRUTH).write_text("1\n2\n3\n")
    assert "00000004.JPEG: ILSVRC2012_validation_ground_truth.txt has labels for 3" in error_of(
        spec
    )
    (tmp_path / TRUTH).write_text("one\n")
    assert "expected a number a line" in error_of(spec)
    (tmp_path / TRUTH).unlink()
    assert "ground_truth.txt: it is missing" in error_of(spec)
    (tmp_path / TRUTH).write_text(truth)
    stray = tmp_path / "val" / "bird.JPEG"
    smooth(0, (8, 8)).save(stray)
    assert "expected a name like ILSVRC2012_val_00000001.JPEG" in error_of(spec)
    stray.unlink()
    meta = (tmp_path / DEVKIT / "meta.mat").read_bytes()
    for damaged in (b"", b"no table", meta[: len(meta) // 2]):
        (tmp_path / DEVKIT / "meta.mat").write_bytes(damaged)
        assert "meta.mat: expected the devkit's table of synsets" in error_of(spec)
    (tmp_path / DEVKIT / "meta.mat").unlink()
    assert "meta.mat: no such file" in error_of(spec)


def test_imagenet_with_an_empty_class_or_split(tmp_path: Path) -> None:
    spec = f"imagenet:{tmp_path}"
    write_imagenet(tmp_path, flat=True)
    for file in (tmp_path / "val").iterdir():
        file.unlink()
    assert "val: expected a folder for each class or ILSVRC2012_val_*.JPEG" in error_of(spec)
    for file in (tmp_path / "train" / WNIDS[1]).iterdir():
        file.unlink()
    assert f"{WNIDS[1]}: no images in this class folder" in error_of(spec)
    (tmp_path / "val").rmdir()
    assert "expected the folders train/ and val/ of ImageNet" in error_of(spec)


def test_cub200_is_joined_by_image(tmp_path: Path) -> None:
    write_cub(tmp_path)
    data = load_data(f"cub200:{tmp_path}")
    assert data.classes == ("002.Laysan", "010.Grackle")
    for images, numbers in ((data.train, [1, 4]), (data.test, [3, 5, 7])):
        assert isinstance(images, ImageFiles)
        assert [file.stem for file in images.files] == [f"Bird_{number}" for number in numbers]
        assert images.labels.tolist() == [int(number in (3, 4, 7)) for number in numbers]
    assert load_data(f"cub200:{tmp_path / 'CUB_200_2011'}").fingerprint == data.fingerprint


def replace_line(file: Path, number: int, line: str) -> None:
    lines = file.read_text().splitlines()
    lines[number] = line
    file.write_text("\n".join(lines))


def test_cub200_with_something_missing_or_damaged(tmp_path: Path) -> None:
    spec = f"cub200:{tmp_path}"
    folder = write_cub(tmp_path)
    before = {file: file.read_text() for file in folder.glob("*.txt")}

    def after(name: str, number: int, line: str) -> str:
        for file, text in before.items():
            file.write_text(text)
        replace_line(folder / name, number, line)
        return error_of(spec)

    labels, split = "image_class_labels.txt", "train_test_split.txt"
    assert "image 3 is of class 11, expected a number that classes.txt" in after(labels, 2, "3 11")
    assert "no class for image 3, 010.Grackle/Bird_3.jpg" in after(labels, 2, "30 10")
    assert "labels.txt: line 3: expected a new number and a value" in after(labels, 2, "2 10")
    assert "labels.txt: line 3: expected a new number" in after(labels, 2, "three 10")
    assert "expected 0 or 1 for image 3, got 2" in after(split, 2, "3 2")
    assert "expected 0 or 1 for image 3, got None" in after(split, 2, "33 1")
    assert "class '010.Grackle' has no training images" in after(split, 3, "4 0")
    assert "no such file, but images.txt names it" in after("images.txt", 1, "3 none.jpg")
    for name in (labels, split, "classes.txt"):
        after(labels, 2, "2 10")
        (folder / name).unlink()
        replaced = error_of(spec)
        assert f"{name}: it is missing" in replaced or name == split
    for file, text in before.items():
        file.write_text(text)
    (folder / "images.txt").unlink()
    assert "expected images.txt, image_class_labels.txt, train_test_split.txt" in error_of(spec)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "imagenet", "cub200", "imagefolder"])
def test_a_folder_of_another_data_set_is_recognised(tmp_path: Path, kind: str) -> None:
    for name in ("birds", "net", "ten", "hundred", "folder", "classes"):
        (tmp_path / name).mkdir()
    write_cub(tmp_path / "birds")
    write_imagenet(tmp_path / "net", flat=True)
    (tmp_path / "ten" / "data_batch_1.bin").touch()
    (tmp_path / "hundred" / "train.bin").touch()
    write_tree(tmp_path / "folder", splits=("train", "val"))
    write_tree(tmp_path, splits=("classes",))
    hints = {
        "birds": "this looks like cub200:",
        "net": "this looks like imagenet:",
        "ten": "this looks like cifar10:",
        "hundred": "this looks like cifar100:",
        "folder": "this looks like imagefolder:",
        "classes": "put them into train/ and val/",
    }
    own = {"imagenet": "net", "cub200": "birds", "cifar10": "ten", "cifar100": "hundred"}
    for name, hint in hints.items():
        if name == own.get(kind) or (kind, name) == ("imagefolder", "folder"):
            continue
        message = error_of(f"{kind}:{tmp_path / name}")
        assert f"{tmp_path / name}: expected " in message
        assert hint in message


def test_a_folder_of_nothing_known(tmp_path: Path) -> None:
    message = error_of(f"imagenet:{tmp_path}")
    assert message == f"{tmp_path}: expected the folders train/ and val/ of ImageNet"


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "imagenet", "cub200", "imagefolder"])
def test_a_root_that_is_missing_or_a_file(tmp_path: Path, kind: str) -> None:
    assert "no such folder" in error_of(f"{kind}:{tmp_path / 'none'}")
    (tmp_path / "file").touch()
    assert "no such folder" in error_of(f"{kind}:{tmp_path / 'file'}")


@pytest.mark.parametrize(
    ("side", "shape", "kind", "augmentation"),
    [
        (32, (3, 32, 32), Images, Augmentation(crop=4)),
        (64, (3, 64, 64), Images, Augmentation(crop=8)),
        (97, (3, 224, 224), ImageFiles, Augmentation(crop=0, area=(0.08, 1.0))),
    ],
)
def test_the_usual_recipe_for_a_size(
    tmp_path: Path,
    side: int,
    shape: tuple[int, int, int],
    kind: type,
    augmentation: Augmentation,
) -> None:
    write_tree(tmp_path, size=(side, side))
    data = load_data(f"imagefolder:{tmp_path}")
    assert (data.input_shape, data.augmentation) == (shape, augmentation)
    assert isinstance(data.train, kind)
    assert isinstance(data.test, kind)


def test_another_size_than_the_usual(tmp_path: Path) -> None:
    write_tree(tmp_path, size=(30, 20))
    large = load_data(f"imagefolder:{tmp_path}@128")
    assert isinstance(large.train, ImageFiles)
    assert (large.input_shape, large.train.resized) == ((3, 128, 128), (146, 146))
    small = load_data(f"imagefolder:{tmp_path}@16")
    assert isinstance(small.train, Images)
    assert small.input_shape == (3, 16, 16)
    assert "expected images of 8 to 4096 pixels" in error_of(f"imagefolder:{tmp_path}@7")
    assert "32x32, expected cifar10:ROOT" in error_of(f"cifar10:{tmp_path}@64")
    assert "no such folder" in error_of(f"imagefolder:{tmp_path}@small")
    tmp_path.rename(f"{tmp_path}@16")
    assert load_data(f"imagefolder:{tmp_path}@16").input_shape == (3, 20, 30)


def changed(data: Data, root: Path, how: str) -> None:
    file = root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    if how == "longer":
        file.write_bytes(file.read_bytes() + b"\0")
    elif how == "renamed":
        file.rename(file.with_name("other.JPEG"))
    elif how == "moved":
        file.rename(root / "train" / WNIDS[1] / file.name)
    else:
        picture(9).save(file.with_name("more.JPEG"))


@pytest.mark.parametrize("how", ["longer", "renamed", "moved", "more"])
def test_a_changed_set_has_another_fingerprint(tmp_path: Path, how: str) -> None:
    write_imagenet(tmp_path, flat=False)
    before = load_data(f"imagenet:{tmp_path}")
    assert load_data(f"imagenet:{tmp_path}").fingerprint == before.fingerprint
    changed(before, tmp_path, how)
    assert load_data(f"imagenet:{tmp_path}").fingerprint != before.fingerprint


def test_damaged_files_of_a_streamed_set_are_named_when_they_are_read(tmp_path: Path) -> None:
    write_imagenet(tmp_path, flat=False)
    victim = tmp_path / "train" / WNIDS[2] / f"{WNIDS[2]}_1.JPEG"
    victim.write_bytes(b"")
    data = load_data(f"imagenet:{tmp_path}")
    assert len(data.test.in_memory()) == 4
    with pytest.raises(DataError, match=r"_1\.JPEG: can't be read as an image: it is empty"):
        data.train.in_memory()


@pytest.mark.real_data
def test_the_birds_that_are_there(real_data: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(real_data / "data" / "cub200_sample.zip") as archive:
        archive.extractall(tmp_path)
    data = load_data(f"cub200:{tmp_path}")
    assert (len(data.classes), len(data.train), len(data.test)) == (10, 300, 243)
    for images in (data.train, data.test):
        assert isinstance(images, ImageFiles)
        for file, label in zip(images.files, images.labels.tolist(), strict=True):
            assert file.parent.name == data.classes[label]
    held = data.test.subset(torch.arange(0, 243, 9)).in_memory()
    assert held.pixels.shape == (27, 3, 224, 224)
    # Photographs: bright and dark, and no two alike.
    assert held.pixels.float().std() > 30
    assert len({Image.fromarray(p[0].numpy()).tobytes() for p in held.pixels}) == 27
