"""Images of a run as its networks take them: normalised, on the run's device."""

from __future__ import annotations

import torch
from torch import Tensor

from lcprune.data import ImageSet, first_pixels
from lcprune.fitness import Precision
from lcprune.runs._prepare import Inputs
from lcprune.training import evaluation_batch


def recalibration_batches(inputs: Inputs) -> list[Tensor]:
    """What BatchNorm statistics are taken from."""
    data, device = inputs.data, inputs.device
    batches = inputs.recalibration.batches(at_once(inputs))
    return [data.normalise(pixels).to(device) for pixels, _ in batches]


def judged_on(inputs: Inputs, images: ImageSet, precision: Precision) -> tuple[Tensor, Tensor]:
    """The images, and their labels; no more than a batch is ever in float32."""
    data, device = inputs.data, inputs.device
    batches = images.batches(at_once(inputs))
    parts = [precision.cast(data.normalise(pixels)).to(device) for pixels, _ in batches]
    return torch.cat(parts), images.labels.to(device)


def first_images(inputs: Inputs, count: int) -> Tensor:
    """The first training images, ``count`` or all of them."""
    data = inputs.data
    return data.normalise(first_pixels(data.train, count)).to(inputs.device)


def at_once(inputs: Inputs) -> int:
    """How many images a network sees at once where none is trained."""
    return evaluation_batch(inputs.data.input_shape)
