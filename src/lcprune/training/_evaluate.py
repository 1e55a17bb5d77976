"""Accuracy, always in float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from lcprune._checks import instance, integer, module, refused, told_in_one_line
from lcprune.data import Data, ImageSet, to_device
from lcprune.errors import ModelError
from lcprune.fitness import eval_mode


def evaluate_top1(
    model: nn.Module, images: ImageSet, data: Data, batch: int | None = None
) -> float:
    """Percentage of images whose largest logit is that of their label.

    The model runs in eval mode where its parameters are, and is left as it was. Without ``batch``
    there are ``evaluation_batch`` images in one. ``ModelError`` where the model doesn't yield one
    logit per class.
    """
    module("model", model)
    instance("data", data, Data, "a Data")
    if not hasattr(images, "batches"):
        raise refused("images", images, "an ImageSet: Images or ImageFiles")
    if batch is not None:
        integer("batch", batch, 1)
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device

    def batches() -> Iterator[tuple[Tensor, Tensor, int]]:
        for pixels, labels in images.batches(batch or evaluation_batch(images.shape)):
            yield data.normalise(to_device(pixels, device)), labels, 1

    right, count = count_right(model, batches(), device, classes=len(data.classes))
    return 100 * right / count


def count_right(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, float]],
    device: torch.device,
    *,
    classes: int | None = None,
) -> tuple[float, float]:
    """How many samples have their largest logit at their target, and how many there are.

    A batch is inputs, targets, and what each of its samples counts for. ``ModelError`` where there
    are not as many logits as ``classes``, if that is given.
    """
    right: list[Tensor] = []
    weights: list[float] = []
    count = 0.0
    with eval_mode(model), torch.inference_mode():
        for inputs, targets, weight in batches:
            with told_in_one_line("the model can't be run on a batch"):
                logits = model(to_device(inputs, device))
            if classes is not None:
                check_logits(logits, len(targets), classes)
            # Where there are no numbers there is no answer, whatever index comes out.
            answers = logits.argmax(1) == to_device(targets, device)
            right.append((answers & logits.isfinite().all(1)).sum())
            weights.append(weight)
            count += weight * len(targets)
    # Read together: on a GPU each reading waits for all that was begun.
    counts = torch.stack(right).tolist() if right else []
    return sum(w * n for w, n in zip(weights, counts, strict=True)), count


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
