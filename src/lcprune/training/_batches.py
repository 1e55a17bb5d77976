"""What a training takes its batches from."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

Batches = Iterable[tuple[Tensor, Tensor]]
"""(inputs, targets), again and again; one with ``set_epoch`` is told the epoch, from 0."""


def epoch_of(loader: Batches, epoch: int) -> Batches:
    """The loader, told of the epoch if it wants to know."""
    set_epoch = getattr(loader, "set_epoch", None)
    if set_epoch is not None:
        set_epoch(epoch)
    return loader
