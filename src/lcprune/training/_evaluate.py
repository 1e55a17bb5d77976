"""Accuracy, always in float32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lcprune.errors import ModelError
from lcprune.fitness import eval_mode


class LabelledPixels(Protocol):
    """Pixels, uint8 (N, C, H, W), and labels, int64 (N,)."""

    @property
    def pixels(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...


class Normaliser(Protocol):
    """What turns pixels into a model's input, and the names of its classes."""

    @property
    def classes(self) -> Sequence[str]: ...
    def normalise(self, pixels: Tensor, /) -> Tensor: ...


def evaluate_top1(
    model: nn.Module, images: LabelledPixels, data: Normaliser, batch: int = 250
) -> float:
    """Percentage of images whose largest logit is that of their label.

    The model runs in eval mode where its parameters are, and is left as it was. ``ModelError``
    where it doesn't yield one logit per class.
    """
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    correct = 0
    with eval_mode(model), torch.inference_mode():
        for start in range(0, len(images.labels), batch):
            part = slice(start, start + batch)
            inputs = data.normalise(images.pixels[part].to(device))
            logits = model(inputs)
            check_logits(logits, len(inputs), len(data.classes))
            correct += int((logits.argmax(1).cpu() == images.labels[part].cpu()).sum())
    return 100 * correct / len(images.labels)


def check_logits(logits: object, count: int, classes: int) -> None:
    """``ModelError`` unless ``logits`` is a tensor (count, classes)."""
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (count, classes):
        raise ModelError(f"the model yields {shape}, expected ({count}, {classes}) logits")


def accuracy(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> float:
    """Percentage of samples whose largest logit is that of their target."""
    correct = count = 0
    with eval_mode(model), torch.inference_mode():
        for inputs, targets in batches:
            predicted = model(inputs.to(device)).argmax(1).cpu()
            correct += int((predicted == targets.cpu()).sum())
            count += len(targets)
    return 100 * correct / max(count, 1)
