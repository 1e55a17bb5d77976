"""An exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def decay_at(decay: float, updates: int) -> float:
    """The decay after ``updates`` updates: ``decay``, or less as long as they are few.

    min(decay, (1 + t) / (10 + t)), so that a short training does not end near where it began.
    """
    return min(decay, (1 + updates) / (10 + updates))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``model`` that averages it at each ``update_parameters(model)``.

    The first update copies. Buffers are averaged like weights, so that BatchNorm has statistics
    of about the weights that it goes with; buffers of integers are copied.
    """

    @torch.no_grad()
    def update(average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        if average[0].is_floating_point() or average[0].is_complex():
            weight = 1 - decay_at(decay, int(updates))
            torch._foreach_lerp_(list(average), list(current), weight)
        else:
            torch._foreach_copy_(list(average), list(current))

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
