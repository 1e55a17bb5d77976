"""The state of a training after an epoch, as one file."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcprune._files import read_sealed, write_sealed
from lcprune.errors import InputError, RunError
from lcprune.training._config import TrainingConfig
from lcprune.training._hooks import TrainingHook, WeightAverage
from lcprune.training._report import EpochReport

SCHEMA = 1


@dataclass(frozen=True)
class Progress:
    """Epochs and steps that are done, and the states after them of every rank's generators."""

    reports: tuple[EpochReport, ...] = ()
    steps: int = 0
    generators: tuple[tuple[Tensor, ...], ...] = ()


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    hooks: Sequence[TrainingHook],
    config: TrainingConfig,
    progress: Progress,
) -> None:
    """Write the state of a training in one step: the file is either the old or the new one.

    ``RunError`` where it can't be written, such as on a full disk; ``InputError`` for a hook whose
    state could not be read again.
    """
    state = {
        "schema": SCHEMA,
        "config": asdict(config),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "hooks": [[type(hook).__name__, _state_of(hook)] for hook in hooks],
        "reports": [list(astuple(report)) for report in progress.reports],
        "steps": progress.steps,
        "generators": [list(states) for states in progress.generators],
    }
    held = io.BytesIO()
    torch.save(state, held)
    # With a checksum of ours: the archive has some, and loading it doesn't look at them.
    write_sealed(path, held.getvalue())


def _state_of(hook: TrainingHook) -> dict[str, Any]:
    state = hook.state_dict()
    if isinstance(hook, WeightAverage):  # large, and of tensors alone
        return state
    held = io.BytesIO()
    try:
        torch.save(state, held)
        torch.load(io.BytesIO(held.getvalue()), weights_only=True)
    except Exception as error:  # whatever pickling a user's object raises
        raise InputError(
            f"the state of the hook {type(hook).__name__} can't be in a checkpoint, expected "
            "tensors, numbers and strings, and lists and dicts of them"
        ) from error
    return state


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    hooks: Sequence[TrainingHook],
    config: TrainingConfig,
    processes: int = 1,
) -> Progress:
    """Put a saved state into ``model``, ``optimizer`` and ``hooks``.

    ``RunError`` where the file is damaged, or belongs to another model, configuration, number of
    processes or other hooks.
    """
    try:
        held = io.BytesIO(read_sealed(path))
    except RunError as error:
        raise RunError(f"{error} (remove it to train from the start)") from error
    try:
        state: Any = torch.load(held, map_location="cpu", weights_only=True)
        if state["schema"] != SCHEMA:
            raise RunError(f"{path}: checkpoint of schema {state['schema']}, expected {SCHEMA}")
        for name, value in asdict(config).items():
            _check(path, name, state["config"].get(name), value)
        _check(path, "processes", len(state["generators"]), processes)
        _check(path, "hooks", [n for n, _ in state["hooks"]], [type(h).__name__ for h in hooks])
        _check_model(path, model, state["model"])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for hook, (_, own) in zip(hooks, state["hooks"], strict=True):
            hook.load_state_dict(own)
        return Progress(
            reports=tuple(EpochReport(*values) for values in state["reports"]),
            steps=state["steps"],
            generators=tuple(tuple(states) for states in state["generators"]),
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


def _check(path: Path, name: str, saved: object, expected: object) -> None:
    if saved != expected:
        raise RunError(
            f"{path}: a checkpoint of a training with {name} = {saved!r}, expected {expected!r}"
        )


def _check_model(path: Path, model: nn.Module, saved: dict[str, Tensor]) -> None:
    own = model.state_dict()
    for key in [*own, *saved]:
        if key not in own or key not in saved or own[key].shape != saved[key].shape:
            raise RunError(f"{path}: a checkpoint of another model: {key!r} differs")


def generator_states(device: torch.device) -> tuple[Tensor, ...]:
    """States of the CPU's generator and, on a GPU, of the device's."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(states)


def restore_generators(states: Sequence[Tensor], device: torch.device) -> None:
    """Put the generators into the states that ``generator_states`` gave."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
