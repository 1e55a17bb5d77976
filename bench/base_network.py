"""A base network that was trained on nine tenths of CIFAR-10's training images, and its data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lcprune.data import Data, ImageSet, hold_out, load_data
from lcprune.models import build, load_weights


@dataclass(frozen=True)
class Base:
    """``data.train`` has the 45,000 images that ``model`` was trained on, ``held`` the others.

    ``digest`` is the beginning of the weights' SHA-256.
    """

    model: nn.Module
    data: Data
    held: ImageSet
    digest: str


def load_base(network: str, weights: Path, cifar: Path) -> Base:
    """The network in evaluation mode, from what ``clean_base.py`` wrote."""
    data, held = hold_out(load_data(f"cifar10:{cifar}"), 10)
    model = build(network, classes=10, input_shape=data.input_shape)
    load_weights(model, str(weights), network)
    model.eval()
    return Base(model, data, held, hashlib.sha256(weights.read_bytes()).hexdigest()[:8])
