"""Handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

from lcprune.data._sets import Augmentation, Data, Images

TEST_FRACTION = 0.2
SPLIT_SEED = 0


def digits() -> Data:
    """Load 1,797 digits of 1x8x8 pixels, four fifths of every class for training.

    The split is seeded, the same at every call. Source: Alpaydin and Kaynak (1998), UCI.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    raw = load_digits()
    pixels = np.rint(raw.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = raw.target.astype(np.int64)
    generator = np.random.default_rng(SPLIT_SEED)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = generator.permutation(np.flatnonzero(labels == label))
        held_out[members[: round(TEST_FRACTION * len(members))]] = True

    def part(mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Images:
        return Images(torch.from_numpy(pixels[mask]), torch.from_numpy(labels[mask]))

    return Data(
        train=part(~held_out),
        test=part(held_out),
        classes=tuple("0123456789"),
        mean=(0.3053,),
        std=(0.3760,),
        input_shape=(1, 8, 8),
        name="digits",
        augmentation=Augmentation(crop=1, flip=False),
    )
