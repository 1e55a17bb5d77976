"""Extremes over channels on their way to a model's outputs.

The largest of several channels is one of them. Where a contraction reads it, its labels have ended;
where it is returned (the best score of a detector, with its class), the channels that it was chosen
from are what the model returns, and must stay as its outputs do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lcprune.tracing._deciding import storage_of

aten = torch.ops.aten

CONTRACTIONS = frozenset(
    {aten.convolution, aten._convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm}
)


class Extremes:
    """Which tensors hold extremes over which labels, up to the next contraction."""

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._fresh: set[int] = set()
        self._by_storage: dict[int, frozenset[int]] = {}

    def add(self, labels: Tensor) -> None:
        """Note that the operation that runs yields an extreme over ``labels``."""
        self._fresh.add(len(self._labels))
        self._labels.append(labels)

    def follow(self, func: Any, tensors: Iterable[Tensor], results: Iterable[Tensor]) -> None:
        """Let the results of an operation hold what its operands hold."""
        if not self._labels:
            return
        found = frozenset(self._fresh)
        self._fresh.clear()
        if func.overloadpacket not in CONTRACTIONS:
            found = found.union(*(self._by_storage.get(storage_of(t), ()) for t in tensors))
        for result in results:
            self._by_storage[storage_of(result)] = found

    def under(self, tensor: Tensor) -> list[Tensor]:
        """The labels of which ``tensor`` holds an extreme."""
        return [self._labels[n] for n in self._by_storage.get(storage_of(tensor), ())]
