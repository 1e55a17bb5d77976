"""The configurations of ``prune`` and of ``train``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcprune.errors import InputError
from lcprune.runs._resolve import resolve_as
from lcprune.training import TrainingConfig

_TRAINING = TrainingConfig()
AUTO = "auto"
_CHOICES = {
    "schedule": ("cosine", "one-cycle"),
    "search_dtype": ("auto", "float32", "bfloat16"),
    "train_dtype": ("auto", "float32", "bfloat16"),
    "executor": ("in-process", "ray"),
}
_AT_LEAST_ONE = (
    "trials",
    "round_to",
    "batch_size",
    "recalibrate_images",
    "fitness_images",
    "epochs",
    "workers",
    "finalists",
    "finalist_steps",
)
_NOT_NEGATIVE = ("finetune_epochs", "base_epochs", "seed", "weight_decay", "mixup", "clip", "crop")
_POSITIVE = ("temperature",)
_SHARES = ("min_keep", "distill_weight")
_SHARES_BELOW_ONE = ("label_smoothing", "ema")


@dataclass(frozen=True)
class Options:
    """What ``prune`` and ``train`` have in common.

    ``model`` and ``data`` must be given. ``crop`` and ``flip`` none leave it to the data set;
    ``hold_out`` N sets every Nth training image of each class aside, 0 none; ``mixup``, ``ema``
    and ``clip`` 0 are off. A ``learning_rate`` of ``auto`` is found by a range test. The rest is
    as in ``TrainingConfig``.
    """

    model: str = ""
    data: str = ""
    weights: str = "default"
    learning_rate: float | str = _TRAINING.learning_rate
    weight_decay: float = _TRAINING.weight_decay
    schedule: str = _TRAINING.schedule
    train_dtype: str = "auto"
    batch_size: int = 128
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: float = 0.0
    clip: float = 0.0
    crop: int | None = None
    flip: bool | None = None
    hold_out: int = 0
    seed: int = 0
    device: str = "auto"

    def as_json(self) -> dict[str, Any]:
        """The configuration in JSON's types, in the order of the fields."""
        values = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def check(self) -> None:
        """``InputError`` where something is absent or out of its range."""
        if not self.model:
            raise InputError("no model given, expected for example cifar_resnet56")
        if not self.data:
            raise InputError("no data given, expected for example --data cifar10:ROOT")
        for key, choices in _CHOICES.items():
            self._demand(key, choices.__contains__, f"one of {', '.join(choices)}")
        for keys, holds, expected in (
            (_AT_LEAST_ONE, lambda v: v >= 1, "at least 1"),
            (_NOT_NEGATIVE, lambda v: 0 <= v < float("inf"), "0 or more"),
            (_POSITIVE, lambda v: 0 < v < float("inf"), "more than 0"),
            (_SHARES, lambda v: 0 <= v <= 1, "between 0 and 1"),
            (_SHARES_BELOW_ONE, lambda v: 0 <= v < 1, "at least 0 and less than 1"),
            (
                ("learning_rate",),
                lambda v: v == AUTO if isinstance(v, str) else 0 < v < float("inf"),
                f"more than 0, or {AUTO}",
            ),
            (("hold_out",), lambda v: v == 0 or v >= 2, "0, or 2 or more"),
        ):
            for key in keys:
                self._demand(key, holds, expected)

    def _demand(self, key: str, holds: Callable[[Any], bool], expected: str) -> None:
        value = getattr(self, key, None)
        if value is not None and not holds(value):
            raise InputError(f"{key} = {value!r}: expected {expected}")


@dataclass(frozen=True)
class PruneOptions(Options):
    """Everything that decides the result of a pruning run.

    At least one bound of ``budget`` must be given. ``base_epochs`` is how long the base network
    is trained first, for a model that comes without weights. Image counts are those of the
    search: disjoint parts of the training images; with ``hold_out`` the fitness sees images that
    were set aside, and nothing else does. Of ``finalists`` of the search, if they are several, each
    is trained for ``finalist_steps`` and the plan is the one that is best then, on as many other
    images as the fitness sees. ``only``, ``skip`` and ``skip_types`` are those of
    ``trace``, ``min_keep`` and ``round_to`` those of ``rank``. With the ``executor`` ray,
    ``workers`` processes at ``ray_address`` (none: on this machine) evaluate candidates.
    """

    budget: tuple[str, ...] = ()
    criterion: str = "l2"
    reduction: str = "sum"
    compensation: str = "additive"
    strategy: str = "evolution"
    trials: int = 400
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    skip_types: tuple[str, ...] = ()
    min_keep: float = 0.1
    round_to: int = 1
    recalibrate_images: int = 1000
    fitness_images: int = 2000
    search_dtype: str = "auto"
    executor: str = "in-process"
    workers: int = 2
    ray_address: str | None = None
    finalists: int = 1
    finalist_steps: int = 150
    finetune_epochs: int = _TRAINING.epochs
    distill: bool = True
    distill_weight: float = _TRAINING.alpha
    temperature: float = _TRAINING.temperature
    base_epochs: int = 0

    def check(self) -> None:
        super().check()
        if not self.budget:
            raise InputError("no budget given, expected for example --budget macs=50%")


@dataclass(frozen=True)
class TrainOptions(Options):
    """Everything that decides the result of a training run.

    ``new_head`` takes weights for another number of classes.
    """

    weights: str = "random"
    learning_rate: float | str = 0.1
    epochs: int = 60
    new_head: bool = False


def resolve(
    given: Mapping[str, Any],
    *,
    file: Path | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> PruneOptions:
    """The configuration of a pruning run, from what ``resolve_as`` takes."""
    return resolve_as(PruneOptions, given, file=file, defaults=defaults)
