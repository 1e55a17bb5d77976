"""One step of gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lcprune.training._config import TrainingConfig
from lcprune.training._loss import labels_loss, teachers_loss
from lcprune.training._mixup import Labels, Mixup
from lcprune.training._processes import Processes, alike
from lcprune.training._shared_norms import shared_norms


class Step:
    """Moves a model's weights by one batch; ``called`` is what is called in the model's place."""

    def __init__(
        self,
        model: nn.Module,
        called: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        teaching: Callable[[Tensor], Tensor] | None,
        processes: Processes,
    ) -> None:
        self._model = model
        self._called = called
        self._optimizer = optimizer
        self._config = config
        self._teaching = teaching
        self._processes = processes
        self.guess = math.nan
        """The loss of outputs that are all equal, on the first batch; at least log(classes),
        which it is without a teacher, since a teacher may know nothing itself."""

    def __call__(self, inputs: Tensor, targets: Tensor, mix: Mixup, rate: float) -> float:
        """Train on a global batch at a learning rate; its mean loss before the step."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        processes, size = self._processes, len(targets)
        place = processes.device
        with alike():
            inputs, labels = mix(inputs.to(place), targets.to(place), processes.part(size))
        weight = processes.weight(size)
        outputs, taught = self._forward(inputs, size)
        if math.isnan(self.guess):
            guess = float(self._loss(torch.zeros_like(outputs), labels, taught))
            [guess] = processes.sum(weight * guess)
            self.guess = max(guess, math.log(outputs.shape[1]))
        loss = self._loss(outputs, labels, taught)
        self._optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over processes as if their parts were of one size.
        scale = weight * processes.count
        (loss if scale == 1 else scale * loss).backward()  # type: ignore[no-untyped-call]
        if self._config.clip is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._config.clip)
        self._optimizer.step()
        [mean] = processes.sum(weight * float(loss.detach()))
        return mean

    def _forward(self, inputs: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        """The model's logits and the teacher's."""
        taught = None if self._teaching is None else self._teaching(inputs)
        if self._config.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        half = self._config.dtype == "bfloat16"
        with (
            torch.autocast(inputs.device.type, torch.bfloat16, enabled=half),
            shared_norms(self._processes, size),
        ):
            outputs: Tensor = self._called(inputs)
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32)), taught

    def _loss(self, outputs: Tensor, labels: Labels, taught: Tensor | None) -> Tensor:
        config = self._config
        hard = labels_loss(outputs, labels, config.label_smoothing)
        if taught is None:
            return hard
        soft = teachers_loss(outputs, taught, config.temperature)
        return (1 - config.alpha) * hard + config.alpha * config.temperature**2 * soft
