"""What others add to the loop: hooks; and the two that are its own, averaging and divergence."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lcprune._checks import told_in_one_line
from lcprune.errors import DivergenceError
from lcprune.training._config import TrainingConfig

FACTOR = 3.0
"""How far above its limit a loss is out of the ordinary."""

STEPS = 50
"""How many such steps in a row are a divergence; a training that recovers takes fewer."""


class TrainingHook:
    """Something that is done beside a training; override what is needed, nothing else happens.

    ``model`` is the network that is trained, never a wrapper of it. ``step`` counts the steps of
    the whole training, from 0. What has to outlive a break is in ``state_dict``, which is written
    to the checkpoint: tensors, numbers, strings, and lists and dicts of them. With several
    processes each has a copy of its own and does the same.

    Example:
        class Sparse(TrainingHook):
            def penalty(self, model, step):
                return 1e-4 * sum(p.abs().sum() for n, p in model.named_parameters() if "bn" in n)
    """

    def penalty(self, model: nn.Module, step: int) -> Tensor | None:
        """What is added to the loss of a step, a scalar; it is not in the loss that is reported."""

    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Called when the weights have moved."""

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Called before the network is validated; ``epoch`` counts from 0."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be there again when the training is resumed."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what ``state_dict`` gave."""


class WeightAverage(TrainingHook):
    """An exponential moving average of a network's weights: ``module``.

    It moves by 1 - min(``decay``, (1 + t) / (10 + t)) after the step t, so that a short training
    does not end near where it began; the first step copies. Buffers are averaged like weights, so
    that BatchNorm has statistics of about the weights that it goes with; buffers of integers are
    copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        with told_in_one_line("the model can't be copied"):
            self.module = copy.deepcopy(model)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def after_step(self, model: nn.Module, optimizer: object, step: int) -> None:
        """Move towards ``model``."""
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        moved = [pair for pair in pairs if self._updates and _has_mean(pair[0])]
        copied = [pair for pair in pairs if not (self._updates and _has_mean(pair[0]))]
        if moved:
            weight = 1 - decay_at(self._decay, self._updates)
            torch._foreach_lerp_([a for a, _ in moved], [b for _, b in moved], weight)
        if copied:
            torch._foreach_copy_([a for a, _ in copied], [b for _, b in copied])
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The average and how many steps are in it."""
        return {"module": self.module.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what ``state_dict`` gave."""
        self.module.load_state_dict(state["module"])
        self._updates = state["updates"]


def decay_at(decay: float, updates: int) -> float:
    """The decay after ``updates`` updates: ``decay``, or less as long as they are few."""
    return min(decay, (1 + updates) / (10 + updates))


def _tensors(model: nn.Module) -> list[Tensor]:
    return list(chain(model.parameters(), model.buffers()))


def _has_mean(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


class DivergenceWatch(TrainingHook):
    """Ends a training that gets nowhere, early.

    A training diverges where its loss is not a number, or in each of ``STEPS`` steps in a row is
    above ``FACTOR`` times both that of the first step, before which no weight has moved, and the
    blind loss, that of a network which answers the same to everything. In a training that works
    no loss is so high for so long, whatever the rate, the warm-up or the mixing; one bad batch, or
    a short climb at the peak of the rate, passes.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._peak = config.learning_rate
        self._limit: float | None = None
        self._streak = 0

    @property
    def climbing(self) -> bool:
        """Whether the last loss that was read was out of the ordinary."""
        return self._streak > 0

    def check(self, read: Iterable[tuple[int, float]], blind_loss: float, epoch: int) -> None:
        """Note steps of an epoch, all counted from 0, and their losses.

        ``DivergenceError`` where the training diverges.
        """
        remedy = f"lower the learning rate, {self._peak:g} at its peak"
        for step, loss in read:
            where = f"epoch {epoch + 1}, step {step + 1}"
            if not math.isfinite(loss):
                raise DivergenceError(f"the loss is {loss} in {where}: {remedy}")
            if self._limit is None:
                self._limit = FACTOR * max(loss, blind_loss)
            self._streak = self._streak + 1 if loss > self._limit else 0
            if self._streak >= STEPS:
                raise DivergenceError(
                    f"the training diverges: the loss is {loss:.4g} in {where}, and was above "
                    f"{self._limit:.4g}, far more than at the start, for {STEPS} steps: {remedy}"
                )

    def state_dict(self) -> dict[str, Any]:
        """The limit, which is of the first step, and for how long the loss has been above."""
        return {"limit": self._limit, "streak": self._streak}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what ``state_dict`` gave."""
        self._limit, self._streak = state["limit"], state["streak"]
