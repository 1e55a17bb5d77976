"""What a step makes smaller: cross-entropy with labels that may be mixed, and distillation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune._checks import told_in_one_line
from lcprune.data import to_device
from lcprune.errors import InputError
from lcprune.training._config import TrainingConfig

_STREAM = 0x6D6978
"""Keeps the draws apart from others with the same seed and epoch, such as the data's."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What the samples of a batch are: ``targets`` at ``share``, ``others`` at 1 - ``share``."""

    targets: Tensor
    others: Tensor | None = None
    share: float = 1.0


def training_loss(
    outputs: Tensor, labels: Labels, teacher_logits: Tensor | None, config: TrainingConfig
) -> Tensor:
    """The mean loss of a batch, a scalar.

    ``outputs`` and ``teacher_logits`` are logits (N, classes). Without a teacher it is the
    cross-entropy CE with the labels, smoothed and mixed; with one it is

        (1 - alpha) CE + alpha T^2 KL(softmax(teacher_logits / T) || softmax(outputs / T))

    Source: Hinton et al. (2015), section 2; T^2 keeps the gradients' size while T changes.
    """
    hard = _cross_entropy(outputs, labels, config.label_smoothing)
    if teacher_logits is None:
        return hard
    soft = functional.kl_div(
        functional.log_softmax(outputs / config.temperature, dim=1),
        functional.log_softmax(teacher_logits / config.temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - config.alpha) * hard + config.alpha * config.temperature**2 * soft


def _cross_entropy(outputs: Tensor, labels: Labels, smoothing: float) -> Tensor:
    loss = functional.cross_entropy(outputs, labels.targets, label_smoothing=smoothing)
    if labels.others is None:
        return loss
    other = functional.cross_entropy(outputs, labels.others, label_smoothing=smoothing)
    return labels.share * loss + (1 - labels.share) * other


def teacher_function(
    teacher: nn.Module | None, config: TrainingConfig, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """A copy of ``teacher`` as a function from inputs to logits; none where it has no weight."""
    if teacher is None or config.alpha == 0:
        return None
    precision = config.teacher_precision
    with told_in_one_line("the teacher can't be copied"):
        own = copy.deepcopy(teacher)
    copied = precision.apply(own.to(device)).eval()

    def logits(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = copied(precision.cast(inputs))
        return outputs.float()

    return logits


class Mixup:
    """Mixes the batches of an epoch, each with itself in another order.

    ``concentration`` is the parameter a of the distribution Beta(a, a) that a batch's share is
    drawn from; 0 mixes nothing. What the i-th batch of epoch e of a seed becomes depends on seed,
    e, i and the batch's size alone. Source: Zhang et al., "mixup: beyond empirical risk
    minimization", ICLR 2018.
    """

    def __init__(self, concentration: float, seed: int, epoch: int) -> None:
        self.concentration = concentration
        self._generator = np.random.default_rng([_STREAM, seed, epoch])

    def __call__(
        self, inputs: Tensor, targets: Tensor, part: slice = slice(None)
    ) -> tuple[Tensor, Labels]:
        """Mix ``inputs`` (N, …) and name their ``targets`` (N, …); only ``part`` is yielded.

        ``InputError`` for inputs that are not floating-point numbers.
        """
        if self.concentration == 0:
            return inputs[part], Labels(targets[part])
        if not inputs.is_floating_point():
            raise InputError(
                f"training: mixup takes the mean of inputs, expected floats, got {inputs.dtype}"
            )
        share = float(self._generator.beta(self.concentration, self.concentration))
        order = torch.from_numpy(self._generator.permutation(len(inputs)))[part]
        order = to_device(order, inputs.device)
        mixed = torch.lerp(inputs[order], inputs[part], share)
        return mixed, Labels(targets[part], targets[order], share)
