"""Training batches that are read from files."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from data.trees import write_files
from lcprune.data import (
    Augmentation,
    AugmentedBatches,
    Data,
    ImageFiles,
    Images,
    StreamedBatches,
    _pixels,
    training_batches,
)
from lcprune.data._augment import _Reader

PART = Augmentation(crop=0, flip=True, area=(0.3, 1.0))
SHIFT = Augmentation(crop=2, flip=True)


def made(files: list[Path], augmentation: Augmentation = PART, workers: int = 0) -> Data:
    images = ImageFiles(files, torch.arange(len(files)), 16, workers=workers)
    classes = tuple(map(str, range(len(files))))
    return Data(
        images,
        images,
        classes,
        (0.2, 0.4, 0.6),
        (0.5, 0.25, 0.2),
        (3, 16, 16),
        augmentation=augmentation,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_files(tmp_path_factory.mktemp("streamed"), [(24, 20), (20, 30)] * 19)


def by_label(batches: StreamedBatches, epoch: int) -> dict[int, Tensor]:
    batches.set_epoch(epoch)
    found = {}
    for inputs, labels in batches:
        assert inputs.dtype == torch.float32
        found.update(zip(labels.tolist(), inputs, strict=True))
    return found


def streamed(data: Data, batch: int = 7, seed: int = 0) -> StreamedBatches:
    loader = training_batches(data.train, data, batch, seed=seed)
    assert isinstance(loader, StreamedBatches)
    return loader


def same(first: dict[int, Tensor], second: dict[int, Tensor]) -> bool:
    return all(torch.equal(first[i], second[i]) for i in first.keys() & second.keys())


@pytest.mark.parametrize("augmentation", [PART, SHIFT])
def test_an_image_depends_on_seed_epoch_and_index_alone(
    files: list[Path], augmentation: Augmentation
) -> None:
    base = by_label(streamed(made(files, augmentation), 7), 3)
    assert sorted(base) == list(range(len(files)))
    for workers, batch in ((0, 19), (1, 7), (3, 20)):
        assert same(base, by_label(streamed(made(files, augmentation, workers), batch), 3))
    assert not same(base, by_label(streamed(made(files, augmentation), 7), 4))
    assert not same(base, by_label(streamed(made(files, augmentation), 7, seed=1), 3))


def test_what_a_process_is_given_can_be_sent_to_it(files: list[Path]) -> None:
    data = made(files)
    assert isinstance(data.train, ImageFiles)
    read = _Reader(PART, data.train.size, data.train.resized, (1, 2, 3), (4, 5))
    sent = pickle.dumps(read)
    assert torch.equal(pickle.loads(sent)((7, files[7])), read((7, files[7])))
    again = pickle.loads(pickle.dumps(data.train))
    assert torch.equal(again.in_memory().pixels, data.train.in_memory().pixels)


def test_the_order_is_that_of_images_in_memory_and_changes_with_the_epoch(
    files: list[Path],
) -> None:
    data = made(files)
    loader, held = streamed(data), AugmentedBatches(data.train.in_memory(), data, 7)
    orders = []
    for epoch in (0, 5):
        loader.set_epoch(epoch)
        held.set_epoch(epoch)
        orders.append([labels.tolist() for _, labels in loader])
        assert orders[-1] == [labels.tolist() for _, labels in held]
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("count", "sizes"), [(8, [4, 4]), (10, [4, 4, 2]), (9, [4, 4]), (1, [1])])
def test_every_image_comes_once_but_a_lonely_last_one(
    files: list[Path], count: int, sizes: list[int]
) -> None:
    loader = streamed(made(files[:38]), 4)
    part = StreamedBatches(loader._images.subset(torch.arange(count)), loader._data, 4)
    seen = [labels for _, labels in part]
    assert [len(labels) for labels in seen] == sizes
    assert len(part) == len(sizes)
    assert len(set(torch.cat(seen).tolist())) == sum(sizes)


def test_a_file_is_opened_once_per_epoch(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[Path] = Counter()
    original = _pixels.opened

    @contextmanager
    def counting(file: Path) -> Iterator[Image.Image]:
        counts[file] += 1
        with original(file) as image:
            yield image

    monkeypatch.setattr(_pixels, "opened", counting)
    list(streamed(made(files)))
    assert counts == Counter(files)


def test_without_variation_training_sees_what_evaluation_sees(files: list[Path]) -> None:
    data = made(files)
    expected = data.normalise(data.train.in_memory().pixels)
    for inputs, labels in training_batches(data.train, data, 7, crop=0, flip=False):
        assert torch.equal(inputs, expected[labels])


def test_a_shift_fills_with_the_mean(files: list[Path]) -> None:
    data = made(files, Augmentation(crop=4, flip=False))
    plain = data.normalise(data.train.in_memory().pixels)
    offsets = set()
    for i, image in by_label(streamed(data), 0).items():
        places = [
            (down, right)
            for down in range(-4, 5)
            for right in range(-4, 5)
            if torch.allclose(image, _moved(plain[i], down, right), atol=0.5 / 255 / 0.2 + 1e-5)
        ]
        assert len(places) == 1
        offsets.update(places)
    assert len(offsets) > 15


def _moved(image: Tensor, down: int, right: int) -> Tensor:
    padded = torch.nn.functional.pad(image, [4] * 4)
    return padded[:, 4 - down : 20 - down, 4 - right : 20 - right]


@pytest.mark.parametrize("kind", ["files", "memory"])
def test_random_parts_are_mirrored_half_of_the_time_and_stay_inside(
    tmp_path: Path, kind: str
) -> None:
    """Colours rise from left to right and from top to bottom, by a constant step."""
    ramp = Image.linear_gradient("L").resize((64, 64))
    picture = Image.merge("RGB", (ramp, ramp.rotate(90), Image.new("L", (64, 64), 128)))
    picture.save(tmp_path / "0.png")
    data = made([tmp_path / "0.png"] * 200, Augmentation(0, True, (0.25, 0.5)))
    images: ImageFiles | Images = data.train  # type: ignore[assignment]
    if kind == "memory":
        images = images.in_memory()
    ((inputs, _),) = training_batches(images, data, 200)
    down = inputs[:, 0, -1].mean(1) - inputs[:, 0, 0].mean(1)
    across = inputs[:, 1, :, -1].mean(1) - inputs[:, 1, :, 0].mean(1)
    assert bool((down > 0).all()) or bool((down < 0).all())
    assert 60 < int((across > 0).sum()) < 140
    # A part of a quarter to a half of the area spans 0.43 to 0.82 of a side's range of colours.
    span = down.abs() * data.std[0] * 16 / 15
    assert float(span.min()) > 0.38
    assert float(span.max()) < 0.88
    assert torch.allclose(inputs[:, 2], inputs[0, 2, 0, 0], atol=1e-5)


def test_what_is_asked_for_comes_before_what_suits_the_data(files: list[Path]) -> None:
    data = made(files)
    loader = training_batches(data.train, data, 7, crop=3)
    assert isinstance(loader, StreamedBatches)
    assert loader._how == Augmentation(crop=3, flip=True, area=None)
    held = training_batches(data.train.in_memory(), data, 7, flip=False)
    assert isinstance(held, AugmentedBatches)
    assert (held._how.area, held._how.flip) == (PART.area, False)


def test_an_image_set_of_ones_own_is_brought_into_memory(files: list[Path]) -> None:
    data = made(files)

    class Other:
        labels = data.train.labels
        shape = data.train.shape
        in_memory = data.train.in_memory

    loader = training_batches(Other(), data, 7)  # type: ignore[arg-type]
    assert isinstance(loader, AugmentedBatches)


@pytest.mark.parametrize("count", [2, 3])
def test_a_rank_reads_its_part_of_each_batch_alone(
    files: list[Path], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    original = _pixels.opened
    monkeypatch.setattr(_pixels, "opened", lambda file: [opened.append(file), original(file)][1])
    loader = streamed(made(files), 7)
    shards = [list(loader.shard(rank, count)) for rank in range(count)]
    assert sorted(opened) == sorted(files)  # nothing is read twice
    for parts, (inputs, targets) in zip(zip(*shards, strict=True), loader, strict=True):
        assert torch.equal(torch.cat([own for own, _, _ in parts]), inputs)
        assert torch.equal(torch.cat([own for _, own, _ in parts]), targets)
