"""The versions of what computed a result."""

from __future__ import annotations

import platform
from importlib import metadata

_PACKAGES = ("lcprune", "torch", "torchvision", "timm", "numpy", "safetensors")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
