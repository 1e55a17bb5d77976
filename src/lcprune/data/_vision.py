"""torchvision, which is an extra."""

from __future__ import annotations

from typing import Any

from lcprune.errors import DataError


def transforms() -> Any:
    """``torchvision.transforms.v2.functional``; ``DataError`` where torchvision is missing."""
    try:
        from torchvision.transforms.v2 import functional
    except ImportError as error:
        raise DataError(
            "images that are read from files while they are used need torchvision: "
            "pip install 'lcprune[vision]'"
        ) from error
    return functional
