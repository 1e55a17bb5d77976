"""The layout in memory that a model is trained in."""

from __future__ import annotations

import torch
from torch import nn

from lcprune.training._config import TrainingConfig


def lay_out(model: nn.Module, config: TrainingConfig) -> bool:
    """Put the channels last where ``config`` asks for it; whether that was done.

    The layout is one of images: a model with weights over volumes has another.
    """
    if not config.channels_last or any(parameter.dim() > 4 for parameter in model.parameters()):
        return False
    model.to(memory_format=torch.channels_last)
    return True
