"""Accuracy, always in float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lcprune.errors import ModelError
from lcprune.fitness import eval_mode


class LabelledImages(Protocol):
    """Pixels, uint8 (B, C, H, W), and labels, int64 (B,), in batches; the shape is (C, H, W)."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    def batches(self, size: int, /) -> Iterator[tuple[Tensor, Tensor]]: ...


class Normaliser(Protocol):
    """What turns pixels into a model's input, and the names of its classes."""

    @property
    def classes(self) -> Sequence[str]: ...
    def normalise(self, pixels: Tensor, /) -> Tensor: ...


def evaluate_top1(
    model: nn.Module, images: LabelledImages, data: Normaliser, batch: int | None = None
) -> float:
    """Percentage of images whose largest logit is that of their label.

    The model runs in eval mode where its parameters are, and is left as it was. Without ``batch``
    there are ``evaluation_batch`` images in one. ``ModelError`` where the model doesn't yield one
    logit per class.
    """
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    correct = count = 0
    with eval_mode(model), torch.inference_mode():
        for pixels, labels in images.batches(batch or evaluation_batch(images.shape)):
            logits = model(data.normalise(pixels.to(device)))
            check_logits(logits, len(labels), len(data.classes))
            correct += int((logits.argmax(1).cpu() == labels.cpu()).sum())
            count += len(labels)
    return 100 * correct / count


def evaluation_batch(shape: tuple[int, int, int], most: int = 250) -> int:
    """Images of ``shape`` (C, H, W) in a batch: ``most``, or fewer so that activations stay small.

    A batch has no more pixels than ``most`` images of 96x96.
    """
    return max(1, min(most, most * 96**2 // (shape[1] * shape[2])))


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
