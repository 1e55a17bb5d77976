"""The configuration of a run: command line over file over defaults."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lcprune.errors import InputError
from lcprune.training import TrainingConfig

_TRAINING = TrainingConfig()
_CHOICES = {
    "schedule": ("cosine", "one-cycle"),
    "search_dtype": ("auto", "float32", "bfloat16"),
    "train_dtype": ("auto", "float32", "bfloat16"),
}
_TEXTS = {"budget": "macs=50%", "skip_types": "Linear"}
_AT_LEAST_ONE = ("trials", "round_to", "batch_size", "recalibrate_images", "fitness_images")
_NOT_NEGATIVE = ("finetune_epochs", "base_epochs", "seed", "weight_decay")
_POSITIVE = ("learning_rate", "temperature")
_SHARES = ("min_keep", "distill_weight")


@dataclass(frozen=True)
class PruneConfig:
    """Everything that decides the result of a pruning run.

    ``model``, ``data`` and at least one bound of ``budget`` must be given. ``base_epochs`` is
    how long the base network is trained first, for a model that comes without weights; ``crop``
    and ``flip`` none leave it to the data set. Image counts are those of the search; both sets
    are disjoint parts of the training data. ``only``, ``skip`` and ``skip_types`` are those of
    ``trace``, ``min_keep`` and ``round_to`` those of ``rank``.
    """

    model: str = ""
    data: str = ""
    budget: tuple[str, ...] = ()
    weights: str = "default"
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
    finetune_epochs: int = _TRAINING.epochs
    learning_rate: float = _TRAINING.learning_rate
    weight_decay: float = _TRAINING.weight_decay
    schedule: str = _TRAINING.schedule
    train_dtype: str = "auto"
    batch_size: int = 128
    distill: bool = True
    distill_weight: float = _TRAINING.alpha
    temperature: float = _TRAINING.temperature
    crop: int | None = None
    flip: bool | None = None
    base_epochs: int = 0
    seed: int = 0
    device: str = "auto"

    def as_json(self) -> dict[str, Any]:
        """The configuration in JSON's types, in the order of the fields."""
        values = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def resolve(
    given: Mapping[str, Any],
    *,
    file: Path | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> PruneConfig:
    """The configuration that results from a command line, a file and defaults.

    ``given`` holds what the command line says, none where it says nothing; ``defaults`` goes
    over the built-in ones. ``InputError`` for an unknown key, a value of the wrong type or out
    of its range, and where the model, the data or the budget is absent.
    """
    values = dict(defaults or {})
    values |= _read_file(file) if file is not None else {}
    values |= {key: value for key, value in given.items() if value is not None}
    config = PruneConfig(**_typed(values, file))
    _check(config)
    return config


def _read_file(path: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror or error}") from error
    except ValueError as error:  # TOML that is wrong, or bytes that are not text
        raise InputError(f"{path} is not TOML: {error}") from error
    return {key.replace("-", "_"): value for key, value in raw.items()}


def _typed(values: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    known = {field.name: field.type for field in fields(PruneConfig)}
    typed = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise InputError(f"unknown key {key!r}{f' in {file}' if file else ''}: {hint}")
        typed[key] = _convert(key, value, str(known[key]))
    return typed


def _convert(key: str, value: Any, kind: str) -> Any:
    if kind == "tuple[str, ...]":
        if isinstance(value, Mapping) and key == "budget":
            return tuple(f"{name}={bound}" for name, bound in value.items())
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list | tuple) and all(isinstance(item, str) for item in values):
            return tuple(values)
    elif kind.endswith("| None") and value is None:
        return None
    elif kind.startswith("bool") or isinstance(value, bool):
        if kind.startswith("bool") and isinstance(value, bool):
            return value
    elif kind == "float" and isinstance(value, int | float):
        return float(value)
    elif (kind.startswith("int") and isinstance(value, int)) or (
        kind == "str" and isinstance(value, str)
    ):
        return value
    expected = kind
    if kind == "tuple[str, ...]":
        expected = f"text such as {_TEXTS.get(key, 'layer1*')!r}, or a list of it"
    raise InputError(f"{key} = {value!r}: expected {expected.removesuffix(' | None')}")


def _check(config: PruneConfig) -> None:
    if not config.model:
        raise InputError("no model given, expected for example cifar_resnet56")
    if not config.data:
        raise InputError("no data given, expected for example --data cifar10:ROOT")
    if not config.budget:
        raise InputError("no budget given, expected for example --budget macs=50%")
    for key, choices in _CHOICES.items():
        _demand(config, key, getattr(config, key) in choices, f"one of {', '.join(choices)}")
    for key in _AT_LEAST_ONE:
        _demand(config, key, getattr(config, key) >= 1, "at least 1")
    for key in _NOT_NEGATIVE:
        _demand(config, key, 0 <= getattr(config, key) < float("inf"), "0 or more")
    _demand(config, "crop", config.crop is None or config.crop >= 0, "0 or more")
    for key in _POSITIVE:
        _demand(config, key, 0 < getattr(config, key) < float("inf"), "more than 0")
    for key in _SHARES:
        _demand(config, key, 0 <= getattr(config, key) <= 1, "between 0 and 1")


def _demand(config: PruneConfig, key: str, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"{key} = {getattr(config, key)!r}: expected {expected}")
