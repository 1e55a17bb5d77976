"""Image files become pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from data.trees import picture, smooth
from lcprune.data._pixels import (
    ASPECT,
    LONGEST,
    central,
    cover,
    evaluated,
    random_box,
    resized_crop,
    shifted,
)
from lcprune.errors import DataError

sides = st.integers(1, 3000)
sizes = st.tuples(sides, sides)


@given(image=sizes, size=st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_the_scaled_image_just_covers(image: tuple[int, int], size: tuple[int, int]) -> None:
    tall, wide = cover(image, size)
    assert tall >= size[0]
    assert wide >= size[1]
    assert tall == size[0] or wide == size[1]
    # In proportion, but for the fraction of a pixel that is cut off, or that had to be added.
    assert abs(tall * image[1] - wide * image[0]) <= max(image)


@given(image=sizes, side=st.integers(1, 300))
def test_the_shorter_side_takes_the_side_of_a_square(image: tuple[int, int], side: int) -> None:
    assert min(cover(image, (side, side))) == side


@given(image=sizes, side=st.integers(8, 300))
def test_the_middle_keeps_whatever_could_be_seen(image: tuple[int, int], side: int) -> None:
    top, left, height, width = central(image, (side, side))
    assert abs(2 * top + height - image[0]) <= 1
    assert abs(2 * left + width - image[1]) <= 1
    tall, wide = cover((height, width), (side, side))
    assert max(tall, wide) <= LONGEST * side + side
    if max(image) <= LONGEST * min(image):
        assert (height, width) == image
    else:
        assert max(tall, wide) >= LONGEST * side


@given(image=sizes, seed=st.integers(0, 99), least=st.floats(0.01, 1.0))
def test_a_random_part_lies_within_and_has_an_allowed_share_and_shape(
    image: tuple[int, int], seed: int, least: float
) -> None:
    generator = np.random.default_rng(seed)
    top, left, tall, wide = random_box(image, (least, 1.0), generator)
    assert 0 <= top <= image[0] - tall
    assert 0 <= left <= image[1] - wide
    assert tall > 0
    assert wide > 0
    if min(tall, wide) >= 100:
        assert 0.97 * ASPECT[0] <= wide / tall <= 1.03 * ASPECT[1]


def test_shares_fill_their_range() -> None:
    generator = np.random.default_rng(0)
    boxes = [random_box((400, 400), (0.2, 0.5), generator) for _ in range(300)]
    shares = np.array([tall * wide / 400**2 for _, _, tall, wide in boxes])
    assert shares.min() > 0.19
    assert shares.max() < 0.51
    counts, _ = np.histogram(shares, 3, (0.2, 0.5))
    assert counts.min() > 60
    assert len({(top, left) for top, left, _, _ in boxes}) > 280


def reference(image: Image.Image, resized: int, size: int) -> Tensor:
    steps = [v2.Resize(resized), v2.CenterCrop(size), v2.PILToTensor()]
    result: Tensor = v2.Compose(steps)(image)
    return result


@pytest.mark.parametrize("shape", [(50, 40), (40, 77), (300, 61), (33, 33), (20, 12), (37, 37)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_evaluation_is_what_torchvision_does(
    tmp_path: Path, shape: tuple[int, int], suffix: str
) -> None:
    file = tmp_path / f"picture.{suffix}"
    smooth(1, shape).save(file)
    with Image.open(file) as image:
        expected = reference(image, 37, 32)
    difference = evaluated(file, (37, 37), (32, 32)).int() - expected.int()
    # Scaled JPEG decoding sets in at twice the size only; the rest is rounding.
    assert int(difference.abs().max()) <= (2 if suffix == "png" or max(shape) < 150 else 12)


def test_a_jpeg_that_is_much_larger_is_decoded_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "large.jpg"
    smooth(3, (1601, 1201)).save(file, quality=95)
    with Image.open(file) as image:
        expected = reference(image, 37, 32)
    decoded = []
    monkeypatch.setattr(
        "lcprune.data._pixels.as_rgb",
        lambda image: decoded.append(image.size) or image.convert("RGB"),
    )
    difference = evaluated(file, (37, 37), (32, 32)).int() - expected.int()
    assert decoded == [(201, 151)]
    assert float(difference.abs().float().mean()) < 1.5


@pytest.mark.parametrize(("size", "suffix"), [((900, 700), "jpg"), ((90, 70), "png")])
def test_a_random_part_is_the_same_with_and_without_small_decoding(
    tmp_path: Path, size: tuple[int, int], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"picture.{suffix}"
    smooth(2, size).save(file, **({"quality": 95} if suffix == "jpg" else {}))
    fast = resized_crop(file, (24, 24), (0.3, 1.0), np.random.default_rng(5))
    monkeypatch.setattr(Image.Image, "draft", lambda *_: None)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
    slow = resized_crop(file, (24, 24), (0.3, 1.0), np.random.default_rng(5))
    assert fast.shape == slow.shape == (3, 24, 24)
    assert float((fast.int() - slow.int()).abs().float().mean()) < 3
    if suffix == "png":
        assert torch.equal(fast, slow)


def save_cmyk(image: Image.Image, file: Path) -> None:
    image.convert("CMYK").save(file.with_suffix(".jpg"), quality=100, subsampling=0)


def save_palette(image: Image.Image, file: Path) -> None:
    transparency = bytes(i % 256 for i in range(256))
    image.quantize(256).save(file.with_suffix(".png"), transparency=transparency)


def save_deep(image: Image.Image, file: Path) -> None:
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(file.with_suffix(".png"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("save", "grey", "tolerance"),
    [
        (lambda image, file: image.convert("L").save(file.with_suffix(".png")), True, 1),
        (lambda image, file: image.convert("LA").save(file.with_suffix(".png")), True, 1),
        (lambda image, file: image.convert("RGBA").save(file.with_suffix(".png")), False, 0),
        (save_cmyk, False, 6),
        (save_palette, False, 40),
        (save_deep, True, 1),
        (lambda image, file: image.save(file.with_suffix(".gif")), False, 60),
    ],
    ids=["grey", "grey+alpha", "rgba", "cmyk", "palette", "16 bit", "gif"],
)
def test_every_kind_of_image_becomes_rgb(
    tmp_path: Path, save: object, grey: bool, tolerance: int
) -> None:
    image = smooth(7, (32, 32))
    save(image, tmp_path / "picture")  # type: ignore[operator]
    (file,) = tmp_path.iterdir()
    expected = np.asarray(image.convert("L").convert("RGB") if grey else image)
    found = evaluated(file, (32, 32), (32, 32)).permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - expected).max() <= tolerance


def test_an_orientation_is_not_looked_at(tmp_path: Path) -> None:
    image = smooth(7, (32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    image.save(tmp_path / "plain.png")
    turned, plain = (
        evaluated(tmp_path / name, (32, 32), (32, 32)) for name in ("turned.png", "plain.png")
    )
    assert torch.equal(turned, plain)


def error_of(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        evaluated(file, (37, 37), (32, 32))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_image(tmp_path: Path) -> None:
    file = tmp_path / "bird.jpg"
    assert "bird.jpg: it is missing" in error_of(file)
    file.touch()
    assert "bird.jpg: can't be read as an image: it is empty" in error_of(file)
    file.write_text("no image")
    assert "bird.jpg: can't be read as an image: of no known format" in error_of(file)
    smooth(0, (60, 60)).save(file)
    file.write_bytes(file.read_bytes()[:400])
    assert "bird.jpg: can't be read as an image: " in error_of(file)


@pytest.mark.parametrize("shape", [(20_000, 10), (10, 20_000), (20_000, 1)])
def test_a_strip_is_looked_at_in_its_middle(tmp_path: Path, shape: tuple[int, int]) -> None:
    file = tmp_path / "strip.png"
    image = Image.new("RGB", shape, (255, 0, 0))
    middle = [max(0, side // 2 - 40) for side in shape]
    image.paste((0, 0, 255), (*middle, *(side // 2 + 40 for side in shape)))
    image.save(file)
    pixels = evaluated(file, (256, 256), (224, 224))
    assert pixels.shape == (3, 224, 224)
    assert bool((pixels == torch.tensor([0, 0, 255]).view(3, 1, 1)).all())
    part = resized_crop(file, (224, 224), (0.08, 1.0), np.random.default_rng(0))
    assert part.shape == (3, 224, 224)


@given(down=st.integers(-9, 9), right=st.integers(-9, 9))
def test_shifted_pixel_by_pixel(down: int, right: int) -> None:
    pixels = torch.from_numpy(np.array(picture(0, (6, 5)))).permute(2, 0, 1)
    found = shifted(pixels, down, right, (1, 2, 3))
    for row in range(5):
        for column in range(6):
            y, x = row - down, column - right
            inside = 0 <= y < 5 and 0 <= x < 6
            expected = pixels[:, y, x].tolist() if inside else [1, 2, 3]
            assert found[:, row, column].tolist() == expected
