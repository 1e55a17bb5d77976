"""What an epoch and a whole training came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochReport:
    """One epoch: ``epoch`` counts from 1, ``loss`` is the mean over its samples.

    ``learning_rate`` is that of the last step; ``val_accuracy`` is in percent, none where there
    was nothing to validate on.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    seconds: float
    seconds_left: float
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
