"""The epochs of a training."""

from __future__ import annotations

from collections.abc import Sized

from torch import nn
from torch.optim.swa_utils import AveragedModel

from lcprune.errors import InputError
from lcprune.training._batches import Batches, epoch_of
from lcprune.training._config import TrainingConfig
from lcprune.training._divergence import DivergenceWatch
from lcprune.training._mixup import Mixup
from lcprune.training._processes import alike
from lcprune.training._step import Step


class Epochs:
    """Runs epochs of one training."""

    def __init__(
        self,
        model: nn.Module,
        step: Step,
        config: TrainingConfig,
        average: AveragedModel | None,
    ) -> None:
        self._model = model
        self._step = step
        self._config = config
        self._average = average
        self.watch = DivergenceWatch(config)

    def run(self, loader: Batches, epoch: int) -> float:
        """Train for an epoch; the mean loss over its samples."""
        steps = len(loader) if isinstance(loader, Sized) else None
        mix = Mixup(self._config.mixup, self._config.seed, epoch)
        self._model.train()
        total, count = 0.0, 0
        for step, (inputs, targets) in enumerate(epoch_of(loader, epoch)):
            # A loader of unknown length holds the rate for an epoch: that of its middle.
            within = 0.5 if steps is None else step / steps
            rate = self._config.learning_rate_at((epoch + within) / self._config.epochs)
            loss = self._step(inputs, targets, mix, rate)
            with alike():
                self.watch.check(loss, self._step.guess, epoch, step)
            if self._average is not None:
                self._average.update_parameters(self._model)
            total += loss * len(targets)
            count += len(targets)
        with alike():
            if count == 0:
                raise InputError("the training data hold no batch")
        return total / count
