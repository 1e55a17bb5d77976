"""The loss on held-back images, as the number that a search minimises."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune.errors import DataError, ModelError
from lcprune.fitness._fold import folded
from lcprune.fitness._modes import eval_mode
from lcprune.fitness._precision import Precision


class CrossEntropy:
    """Mean cross-entropy of a classifier on fixed images; lower is better.

        fitness = CrossEntropy(images, labels, batch=250)
        loss = fitness(model)

    ``images`` are normalised float32 (N, C, H, W), ``labels`` int64 (N,). With ``precision`` the
    images are held in its type and layout, for models that ``precision.apply`` made. The
    log-softmax is float32 always. A loss that is not a number counts as infinite. The model runs
    in eval mode, BatchNorm folded into convolutions where that can be done, and is left as it
    was. ``ModelError`` where its outputs don't fit the labels.
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

    def __call__(self, model: nn.Module) -> float:
        total = 0.0
        with eval_mode(model), torch.inference_mode():
            evaluated = folded(model)
            for inputs, targets in self._batches:
                outputs = evaluated(inputs)
                self._check(outputs, len(targets))
                total += float(functional.cross_entropy(outputs.float(), targets, reduction="sum"))
        return total / self._count if math.isfinite(total) else math.inf

    def _check(self, outputs: object, count: int) -> None:
        if not isinstance(outputs, Tensor):
            raise ModelError(f"expected logits (N, classes), got {type(outputs).__name__}")
        if outputs.dim() != 2 or len(outputs) != count or outputs.shape[1] < self._classes:
            raise ModelError(
                f"expected logits ({count}, at least {self._classes}), got {tuple(outputs.shape)}"
            )
