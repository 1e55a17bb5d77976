"""One step of gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lcprune.training._config import TrainingConfig
from lcprune.training._loss import labels_loss, teachers_loss
from lcprune.training._mixup import Labels, Mixup


class Step:
    """Moves a model's weights by one batch."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        teaching: Callable[[Tensor], Tensor] | None,
        device: torch.device,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._config = config
        self._teaching = teaching
        self._device = device
        self.guess = math.nan
        """The loss of outputs that are all equal, on the first batch."""

    def __call__(self, inputs: Tensor, targets: Tensor, mix: Mixup, rate: float) -> float:
        """Train on a batch at a learning rate; the loss before the step."""
        config = self._config
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        inputs, labels = mix(inputs.to(self._device), targets.to(self._device))
        loss = self._loss(inputs, labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), config.clip)
        self._optimizer.step()
        return float(loss.detach())

    def _loss(self, inputs: Tensor, labels: Labels) -> Tensor:
        config = self._config
        taught = None if self._teaching is None else self._teaching(inputs)
        if config.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        half = config.dtype == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            outputs = self._model(inputs)
        outputs = outputs.float()
        if math.isnan(self.guess):
            with torch.no_grad():
                self.guess = float(self._compare(torch.zeros_like(outputs), labels, taught))
        return self._compare(outputs, labels, taught)

    def _compare(self, outputs: Tensor, labels: Labels, taught: Tensor | None) -> Tensor:
        config = self._config
        hard = labels_loss(outputs, labels, config.label_smoothing)
        if taught is None:
            return hard
        soft = teachers_loss(outputs, taught, config.temperature)
        return (1 - config.alpha) * hard + config.alpha * config.temperature**2 * soft
