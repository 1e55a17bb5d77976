"""What is usual for images of a size: how they are varied in training and cut in evaluation."""

from __future__ import annotations

from lcprune.data._geometry import Size
from lcprune.data._values import Augmentation

SMALL = 96
"""Images with no side longer than this are shifted as a whole; of larger ones parts are taken."""

AREA = (0.08, 1.0)
"""Share of a large image that a random part has (Szegedy et al., 2015)."""


def is_small(size: Size) -> bool:
    """Whether images of this height and width are treated as small ones."""
    return max(size) <= SMALL


def standard_augmentation(shape: tuple[int, int, int]) -> Augmentation:
    """The usual variation in training of images of ``shape``, (C, H, W).

    Small ones are mirrored and shifted by up to an eighth of their side: 4 pixels at 32, 8 at 64
    (He et al., 2015, section 4.2). Of larger ones, as at 224, a random part is mirrored and
    scaled.
    """
    size = shape[1:]
    if is_small(size):
        return Augmentation(crop=min(size) // 8)
    return Augmentation(crop=0, area=AREA)


def resized_for(size: Size) -> Size:
    """What an image is scaled to cover before its centre is cut to ``size``: 256 for 224."""
    if is_small(size):
        return size
    return round(size[0] * 256 / 224), round(size[1] * 256 / 224)
