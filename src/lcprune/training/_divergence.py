"""A training that gets nowhere is told early."""

from __future__ import annotations

import math

from lcprune.errors import DivergenceError
from lcprune.training._config import TrainingConfig

FACTOR = 3.0
"""How far above its limit a loss is out of the ordinary."""

STEPS = 50
"""How many such steps in a row are a divergence; a training that recovers takes fewer."""


class DivergenceWatch:
    """Watches the losses of a training.

    A training diverges where its loss is not a number, or in each of ``STEPS`` steps in a row is
    above ``FACTOR`` times both that of the first step, before which no weight has moved, and that
    of a network which answers the same to everything. A loss worse than a guess by that much and
    for so long is none of a training that works, whatever the rate, the warm-up or the mixing;
    one bad batch, or a short climb at the peak of the rate, passes.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._peak = config.learning_rate
        self._limit: float | None = None
        self._streak = 0

    @property
    def climbing(self) -> bool:
        """Whether the last step's loss was out of the ordinary."""
        return self._streak > 0

    def check(self, loss: float, guess: float, epoch: int, step: int) -> None:
        """Note a step's loss; ``DivergenceError`` where the training diverges.

        ``guess`` is the loss of outputs that are all equal; ``epoch`` and ``step`` count from 0.
        """
        where = f"epoch {epoch + 1}, step {step + 1}"
        remedy = f"lower the learning rate, {self._peak:g} at its peak"
        if not math.isfinite(loss):
            raise DivergenceError(f"the loss is {loss} in {where}: {remedy}")
        if self._limit is None:
            self._limit = FACTOR * max(loss, guess)
        self._streak = self._streak + 1 if loss > self._limit else 0
        if self._streak >= STEPS:
            raise DivergenceError(
                f"the training diverges: the loss is {loss:.4g} in {where}, and was above "
                f"{self._limit:.4g}, far more than at the start, for {STEPS} steps: {remedy}"
            )
