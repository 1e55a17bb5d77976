"""Gradient descent as a configuration asks for it."""

from __future__ import annotations

import torch
from torch import nn

from lcprune.errors import InputError
from lcprune.training._config import TrainingConfig


def sgd(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Nesterov momentum; weight decay on what has two and more dimensions.

    ``InputError`` where all parameters are frozen.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("the model has no parameter that can be trained")
    decayed = [parameter for parameter in trained if parameter.dim() > 1]
    rest = [parameter for parameter in trained if parameter.dim() <= 1]
    groups = [(decayed, config.weight_decay), (rest, 0.0)]
    return torch.optim.SGD(
        [{"params": members, "weight_decay": decay} for members, decay in groups if members],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
    )
