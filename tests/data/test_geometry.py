"""Which part of an image is looked at."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lcprune.data._geometry import ASPECT, LONGEST, central, cover, random_box

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
