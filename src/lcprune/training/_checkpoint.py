"""The state of a training after an epoch, as one file."""

from __future__ import annotations

import io
import pickle
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lcprune._files import read_sealed, write_sealed
from lcprune.errors import RunError
from lcprune.training._config import TrainingConfig
from lcprune.training._report import EpochReport

SCHEMA = 1


@dataclass(frozen=True)
class Progress:
    """Epochs that are done, and the states after them of every process's generators."""

    reports: tuple[EpochReport, ...]
    generators: tuple[tuple[Tensor, ...], ...]


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
    config: TrainingConfig,
    progress: Progress,
) -> None:
    """Write the state of a training in one step: the file is either the old or the new one.

    ``RunError`` where it can't be written, such as on a full disk.
    """
    state = {
        "schema": SCHEMA,
        "config": _plain(config),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": None if average is None else average.state_dict(),
        "reports": [list(astuple(report)) for report in progress.reports],
        "generators": list(progress.generators[0]),
        "others": [list(states) for states in progress.generators[1:]],
    }
    held = io.BytesIO()
    torch.save(state, held)
    # With a checksum of ours: the archive has some, and loading it doesn't look at them.
    write_sealed(path, held.getvalue())


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
    config: TrainingConfig,
    processes: int = 1,
) -> Progress:
    """Put a saved state into ``model``, ``optimizer`` and ``average``.

    ``RunError`` where the file is damaged, or belongs to another model, configuration or number
    of processes.
    """
    try:
        held = io.BytesIO(read_sealed(path))
    except RunError as error:
        raise RunError(f"{error} (remove it to train from the start)") from error
    try:
        state: Any = torch.load(held, map_location="cpu", weights_only=True)
        # A training from before there was an option had what is its default now.
        saved = {**_plain(TrainingConfig()), **state["config"]}
        if state["schema"] != SCHEMA:
            raise RunError(f"{path}: checkpoint of schema {state['schema']}, expected {SCHEMA}")
        for name, value in _plain(config).items():
            if saved.get(name) != value:
                raise RunError(
                    f"{path}: a checkpoint of a training with {name} = {saved.get(name)!r}, "
                    f"expected {value!r}"
                )
        generators = [state["generators"], *state.get("others", [])]
        if len(generators) != processes:
            raise RunError(
                f"{path}: a checkpoint of a training in {_counted(len(generators))}, "
                f"expected {_counted(processes)}"
            )
        _check_model(path, model, state["model"])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        return Progress(
            reports=tuple(EpochReport(*values) for values in state["reports"]),
            generators=tuple(tuple(states) for states in generators),
        )
    except (
        pickle.UnpicklingError,
        OSError,
        EOFError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise RunError(f"{path}: not a checkpoint that can be resumed") from error


def _check_model(path: Path, model: nn.Module, saved: dict[str, Tensor]) -> None:
    own = model.state_dict()
    for key in [*own, *saved]:
        if key not in own or key not in saved or own[key].shape != saved[key].shape:
            raise RunError(f"{path}: a checkpoint of another model: {key!r} differs")


def _counted(processes: int) -> str:
    return "one process" if processes == 1 else f"{processes} processes"


def _plain(config: TrainingConfig) -> dict[str, Any]:
    return asdict(config)
