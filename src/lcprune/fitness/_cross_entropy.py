"""The loss on held-back images, as the number that a search minimises."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map

from lcprune._checks import instance, integer, module, number
from lcprune.errors import DataError, ModelError
from lcprune.fitness._fold import folded, folds
from lcprune.fitness._precision import Precision
from lcprune.fitness._running import eval_mode, replicas, run_on, spread, worker_count
from lcprune.tracing import Inputs


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
        instance("images", images, Tensor, "normalised images, float32 (N, …)", DataError)
        instance("labels", labels, Tensor, "labels, int64 (N,)", DataError)
        integer("batch", batch, 1)
        if precision is not None:
            instance("precision", precision, Precision, "a Precision")
        if not images.is_floating_point() or images.dim() < 2:
            raise DataError(
                f"images: expected float32 (N, …), got {images.dtype} {tuple(images.shape)}"
            )
        if images.is_meta or labels.is_meta:
            raise DataError("images and labels: they are on the meta device, expected numbers")
        if labels.dtype != torch.int64 or labels.dim() != 1:
            raise DataError(
                f"labels: expected int64 (N,), got {labels.dtype} {tuple(labels.shape)}"
            )
        if len(images) == 0 or len(images) != len(labels):
            raise DataError(
                f"expected as many labels as images, at least one: {len(images)} and {len(labels)}"
            )
        if int(labels.min()) < 0:
            raise DataError(f"labels: expected 0 or more, got {int(labels.min())}")
        if not bool(images.isfinite().all()):
            raise DataError("images: they hold NaN or infinity, expected finite numbers")
        held = images if precision is None else precision.cast(images)
        self._batches = tuple(
            zip(torch.split(held, batch), torch.split(labels, batch), strict=True)
        )
        self._count = len(labels)
        self._classes = int(labels.max()) + 1
        self._folds: dict[tuple[tuple[str, type], ...], bool] = {}

    def part(self, share: float) -> CrossEntropy:
        """The same on the first ``share`` of the images, 0 … 1, at least 16; nothing is copied."""
        number("share", share, 0, 1)
        part = copy.copy(self)
        part._batches = tuple(first_part(self._batches, share))
        part._count = sum(len(labels) for _, labels in part._batches)
        return part

    def __call__(self, model: nn.Module) -> float:
        module("model", model)
        with eval_mode(model):
            # All candidates of a search are of the same modules: asked once.
            kind = tuple((name, type(part)) for name, part in model.named_modules())
            if kind not in self._folds:
                self._folds[kind] = folds(model, self._batches[0][0][:2])
            evaluated = folded(model) if self._folds[kind] else model
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
            outputs = run_on(model, inputs)
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


@runtime_checkable
class Divisible(Protocol):
    """A fitness that can be measured on a part of its images."""

    def part(self, share: float) -> Callable[[nn.Module], float]:
        """The same fitness on the first ``share`` of the images, above 0 and at most 1."""


AnyBatch = TypeVar("AnyBatch")


def first_part(batches: Sequence[AnyBatch], share: float) -> list[AnyBatch]:
    """The first ``share`` of the images in ``batches``, rounded up, not copied.

    At least ``FEWEST``, where there are as many. A batch is a tensor (N, …), a tuple of such or
    what else ``recalibrate`` takes. The last one may be cut, but not to a single image, of which
    BatchNorm can't always make statistics: that one is left out.
    """
    sizes = [_samples(batch) for batch in batches]
    # Rounded first: 0.1 * 30 is a little above 3 in binary.
    left = max(FEWEST, math.ceil(round(share * sum(sizes), 9)))
    part: list[AnyBatch] = []
    for batch, size in zip(batches, sizes, strict=True):
        if left <= 0 or (left == 1 < size and part):
            break
        part.append(_first(batch, left) if left < size else batch)
        left -= size
    return part


def _samples(batch: Any) -> int:
    """The N of a batch: that of its first tensor which has one."""
    tensors = batch.tensors() if isinstance(batch, Inputs) else tree_leaves(batch)
    return next((len(x) for x in tensors if isinstance(x, Tensor) and x.dim()), 0)


def _first(batch: Any, count: int) -> Any:
    """The first samples; what is no batch of tensors beside the samples stays."""
    size = _samples(batch)

    def cut(value: Any) -> Any:
        several = isinstance(value, Tensor) and value.dim() and len(value) == size
        return value[:count] if several else value

    return batch.mapped(cut) if isinstance(batch, Inputs) else tree_map(cut, batch)
