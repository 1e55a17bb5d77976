"""Runs on scikit-learn's digits that take a second, finished and left in the middle: fixtures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from lcprune.artifact import PLAN, WEIGHTS
from lcprune.cli import main
from lcprune.data import load_data, training_batches
from lcprune.engines import Timing
from lcprune.models import build
from lcprune.runs import SUMMARY, Advance, PruneOptions, Silent, prune_job
from lcprune.training import TrainingConfig, finetune

VARYING = {"search_seconds", "finetune_seconds", "latency", "peak_rss_mb"}
"""What a run takes is not what it does."""

STAGES = {"training": 1, "search": 4, "finalists": 1, "fine-tuning": 1, "summary": 0}
"""The stages of a run, and the step of each after which it was left."""


def in_no_time(
    calls: Mapping[str, Callable[[], object]], *, batch: int, threads: int, **_: Any
) -> dict[str, Timing]:
    """Calls each once, and says that all took a millisecond."""
    for call in calls.values():
        call()
    return {name: Timing(batch, threads, 1, 1.0, 1.0, 1.0) for name in calls}


@contextmanager
def quickly() -> Iterator[None]:
    """One thread, since runs are compared bit for bit across processes; latencies in no time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lcprune.runs._stopwatch.time_in_turns", in_no_time)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with weights for ``digits_resnet``."""
    data = load_data("digits")
    model = build("digits_resnet", classes=10, input_shape=data.input_shape)
    with quickly():
        finetune(model, training_batches(data.train, data, 64), config=TrainingConfig(epochs=2))
    path = tmp_path_factory.mktemp("weights") / "digits_resnet.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def options(weights: Path) -> dict[str, Any]:
    """The configuration of a run that takes a second."""
    return {
        "model": "digits_resnet",
        "data": "digits",
        "weights": str(weights),
        "budget": ["macs=50%"],
        "round_to": 1,
        "trials": 8,
        "recalibrate_images": 100,
        "fitness_images": 100,
        "search_dtype": "float32",
        "train_dtype": "float32",
        "finetune_epochs": 3,
        "seed": 1,
    }


@pytest.fixture(scope="session")
def config(options: dict[str, Any]) -> PruneOptions:
    return PruneOptions.of(options)


@pytest.fixture(scope="session")
def finished(config: PruneOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run; only to be read."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with quickly():
        prune_job(config, out)
    return out


@pytest.fixture(scope="session")
def every_stage(options: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run that has them all."""
    return options | {
        "weights": "random",
        "base_epochs": 2,
        "finalists": 2,
        "finalist_steps": 3,
        "reconstruct": True,
        "finetune_epochs": 2,
    }


class Copies(Silent):
    """Copies a run's directory at a step of each stage, as a killed process would leave it."""

    def __init__(self, out: Path, into: Path) -> None:
        self._out = out
        self._into = into

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Advance]:
        def advance(done: float, text: str) -> None:
            if done == STAGES[name]:
                shutil.copytree(self._out, self._into / name)

        yield advance


@pytest.fixture(scope="session")
def half_finished(every_stage: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run left in each of ``STAGES``, and ``unbroken``; only to be copied."""
    into = tmp_path_factory.mktemp("half_finished")
    out = into / "unbroken"
    with quickly():
        prune_job(PruneOptions.of(every_stage), out, reporter=Copies(out, into))
    shutil.copytree(out, into / "summary")
    (into / "summary" / SUMMARY).unlink()
    return into


def outcome(out: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    """Plan, weights and summary of a finished run, without what may vary."""
    summary = json.loads((out / SUMMARY).read_text())
    kept = {key: value for key, value in summary.items() if key not in VARYING}
    return (out / PLAN).read_bytes(), (out / WEIGHTS).read_bytes(), kept


def as_arguments(options: dict[str, Any]) -> list[str]:
    """The command line that says the same as a configuration."""
    arguments = [options["model"]]
    for key, value in options.items():
        if key != "model":
            for item in value if isinstance(value, list) else [value]:
                arguments += [f"--{key.replace('_', '-')}", str(item)]
    return arguments


Prune = Callable[..., int]


@pytest.fixture
def prune(options: dict[str, Any]) -> Prune:
    """Runs ``lcprune prune`` with those options and others, and gives the exit code."""

    def run(out: Path, *flags: str, **changes: Any) -> int:
        changed = {key: value for key, value in (options | changes).items() if value is not None}
        return main(["prune", *as_arguments(changed), "--out", str(out), *flags])

    return run
