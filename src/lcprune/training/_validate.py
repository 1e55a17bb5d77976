"""Accuracy during a training, the work shared by its processes."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from lcprune.training._batches import Batches
from lcprune.training._evaluate import accuracy
from lcprune.training._processes import Processes


def validate(model: nn.Module, loader: Batches, processes: Processes) -> float:
    """Percentage of samples whose largest logit is that of their target, over all processes."""
    if processes.count == 1:
        return accuracy(model, loader, processes.device)
    own = _Share(loader, processes)
    percent = accuracy(model, own, processes.device)
    right, count = processes.sum(round(percent * own.samples / 100), own.samples)
    return 100 * right / max(count, 1)


class _Share:
    """Every ``count``-th batch, and how many samples those were."""

    def __init__(self, loader: Batches, processes: Processes) -> None:
        self._loader = loader
        self._processes = processes
        self.samples = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for i, (inputs, targets) in enumerate(self._loader):
            if i % self._processes.count == self._processes.rank:
                self.samples += len(targets)
                yield inputs, targets
