"""The loss on held-back images, as the number that a search minimises."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune.errors import DataError, InputError, ModelError
from lcprune.fitness._fold import folded
from lcprune.fitness._precision import Precision
from lcprune.fitness._running import eval_mode, replicas, spread, worker_count


class CrossEntropy:
    """Mean cross-entropy of a classifier on fixed images; lower is better.

        fitness = CrossEntropy(images, labels, batch=250)
        loss = fitness(model)

    ``images`` are normalised float32 (N, C, H, W), ``labels`` int64 (N,). With ``precision`` the
    images are held in its type and layout, for models that ``precision.apply`` made. The
    log-softmax is float32 always. A loss that is not a number counts as infinite.

    The model runs in eval mode, BatchNorm folded into convolutions where that can be done, and is
    left as it was. On a CPU the batches are spread over threads, which does not change the loss.
    ``ModelError`` where the outputs don't fit the labels.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, batch: int, precision: Precision | None = None
    ) -> None:
        if len(images) == 0 or len(images) != len(labels):
            raise DataError(
                f"expected as many labels as images, at least one: {len(images)} and {len(labels)}"
            )
        held = images if precision is None else precision.cast(images)
        self._batches = tuple(
            zip(torch.split(held, batch), torch.split(labels, batch), strict=True)
        )
        self._count = len(labels)
        self._classes = int(labels.max()) + 1

    def part(self, share: float) -> CrossEntropy:
        """The same on the first ``share`` of the images, 0 … 1, at least 16; nothing is copied."""
        if not 0 <= share <= 1:
            raise InputError(f"a share of {share} of the images, expected 0 … 1")
        part = copy.copy(self)
        part._batches = tuple(first_part(self._batches, share))
        part._count = sum(len(labels) for _, labels in part._batches)
        return part

    def __call__(self, model: nn.Module) -> float:
        with eval_mode(model):
            evaluated = folded(model)
            workers = worker_count(model, len(self._batches))
            # What torch.fx could follow keeps nothing of its own between calls.
            traced = evaluated is not model
            models = [evaluated] * max(workers, 1) if traced else replicas(model, workers)
            losses = spread(self._loss, models, self._batches, workers)
        # Read together, at the end: on a GPU each reading waits for all that was begun.
        total: float = sum(torch.stack(losses).tolist())
        return total / self._count if math.isfinite(total) else math.inf

    def _loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        with torch.inference_mode():
            outputs = model(inputs)
            self._check(outputs, len(targets))
            return functional.cross_entropy(outputs.float(), targets, reduction="sum")

    def _check(self, outputs: object, count: int) -> None:
        if not isinstance(outputs, Tensor):
            raise ModelError(f"expected logits (N, classes), got {type(outputs).__name__}")
        if outputs.dim() != 2 or len(outputs) != count or outputs.shape[1] < self._classes:
            raise ModelError(
                f"expected logits ({count}, at least {self._classes}), got {tuple(outputs.shape)}"
            )


FEWEST = 16

Batch = TypeVar("Batch", bound=Tensor | tuple[Tensor, ...])


@runtime_checkable
class Divisible(Protocol):
    """A fitness that can be measured on a part of its images."""

    def part(self, share: float) -> Callable[[nn.Module], float]:
        """The same fitness on the first ``share`` of the images, above 0 and at most 1."""


def first_part(batches: Sequence[Batch], share: float) -> list[Batch]:
    """The first ``share`` of the images in ``batches``, rounded up, not copied.

    At least ``FEWEST``, where there are as many. A batch is a tensor (N, …) or a tuple of such.
    The last one may be cut, but not to a single image, of which BatchNorm can't always make
    statistics: that one is left out.
    """
    sizes = [len(batch) if isinstance(batch, Tensor) else len(batch[0]) for batch in batches]
    # Rounded first: 0.1 * 30 is a little above 3 in binary.
    left = max(FEWEST, math.ceil(round(share * sum(sizes), 9)))
    part: list[Batch] = []
    for batch, size in zip(batches, sizes, strict=True):
        if left <= 0 or (left == 1 < size and part):
            break
        part.append(_first(batch, left) if left < size else batch)
        left -= size
    return part


def _first(batch: Any, count: int) -> Any:
    return batch[:count] if isinstance(batch, Tensor) else tuple(held[:count] for held in batch)
