"""What a teacher says of a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lcprune.training._config import TrainingConfig


def teaching(
    teacher: nn.Module | None, config: TrainingConfig, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """A copy of ``teacher`` as a function from inputs to logits; none where it has no weight."""
    if teacher is None or config.alpha == 0:
        return None
    precision = config.teacher_precision
    copied = precision.apply(copy.deepcopy(teacher).to(device)).eval()

    def teach(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = copied(precision.cast(inputs))
        return outputs.float()

    return teach
