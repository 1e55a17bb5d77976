"""What a training tells: within an epoch, after one, and in the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS_APART = 1.0
"""Least time between two reports within an epoch."""


@dataclass(frozen=True)
class StepProgress:
    """How far a training is within an epoch: ``step`` of ``steps`` are done.

    ``epoch`` counts from 1. ``steps`` is of the epoch, and ``seconds_left`` of the whole training,
    validation aside; none where the loader has no length. ``loss`` is the latest that was read,
    which may be some steps old; none before the first.
    """

    epoch: int
    epochs: int
    step: int
    steps: int | None
    images_per_second: float
    seconds_left: float | None
    loss: float | None


@dataclass(frozen=True)
class EpochReport:
    """One epoch: ``epoch`` counts from 1, ``loss`` is the mean over its samples.

    ``learning_rate`` is that of the last step; ``seconds`` are with validation,
    ``images_per_second`` without; ``val_accuracy`` is in percent, none where there was nothing to
    validate on.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    seconds: float
    seconds_left: float
    images_per_second: float
    val_accuracy: float | None


@dataclass(frozen=True)
class TrainingResult:
    """All epochs, those before a resume included; the last one counts, not the best."""

    reports: tuple[EpochReport, ...]

    @property
    def seconds(self) -> float:
        """Time in all epochs."""
        return sum(report.seconds for report in self.reports)

    @property
    def loss(self) -> float | None:
        """Mean loss of the last epoch."""
        return self.reports[-1].loss if self.reports else None

    @property
    def val_accuracy(self) -> float | None:
        """Accuracy after the last epoch, percent."""
        return self.reports[-1].val_accuracy if self.reports else None


class EpochClock:
    """Counts the steps of an epoch and tells of them about once a second, and of the last one."""

    def __init__(
        self,
        epoch: int,
        epochs: int,
        steps: int | None,
        on_step: Callable[[StepProgress], None],
    ) -> None:
        self._epoch, self._epochs, self._steps = epoch, epochs, steps
        self._on_step = on_step
        self._begin = self._last = time.perf_counter()
        self._step = self._images = 0

    @property
    def seconds(self) -> float:
        """Since the epoch's begin."""
        return time.perf_counter() - self._begin

    @property
    def images_per_second(self) -> float:
        """So far."""
        return self._images / max(self.seconds, 1e-9)

    def step(self, images: int, loss: float | None) -> None:
        """One more step is done, with ``images`` samples; ``loss`` is the latest known."""
        self._step += 1
        self._images += images
        now = time.perf_counter()
        if now - self._last >= SECONDS_APART or self._step == self._steps:
            self._last = now
            self._on_step(self._progress(loss))

    def _progress(self, loss: float | None) -> StepProgress:
        left = None
        if self._steps is not None:
            all_left = self._steps - self._step + (self._epochs - self._epoch - 1) * self._steps
            left = all_left * self.seconds / self._step
        return StepProgress(
            epoch=self._epoch + 1,
            epochs=self._epochs,
            step=self._step,
            steps=self._steps,
            images_per_second=self.images_per_second,
            seconds_left=left,
            loss=loss,
        )
