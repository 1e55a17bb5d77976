"""A small network that knows the digits a little, and runs on it that take a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from lcprune.cli import main
from lcprune.data import AugmentedBatches, load_data
from lcprune.models import build
from lcprune.runs import PruneOptions, _measure, prune_job, resolve
from lcprune.training import TrainingConfig, finetune


@pytest.fixture(scope="package")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with weights for ``digits_resnet``."""
    data = load_data("digits")
    model = build("digits_resnet", classes=10, input_shape=data.input_shape)
    batches = AugmentedBatches(data.train, data, 64)
    finetune(model, batches, config=TrainingConfig(epochs=2))
    path = tmp_path_factory.mktemp("weights") / "digits_resnet.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="package")
def options(weights: Path) -> dict[str, Any]:
    """The configuration of a run that takes a second."""
    return {
        "model": "digits_resnet",
        "data": "digits",
        "weights": str(weights),
        "budget": ["macs=50%"],
        "trials": 8,
        "recalibrate_images": 100,
        "fitness_images": 100,
        "search_dtype": "float32",
        "train_dtype": "float32",
        "finetune_epochs": 3,
        "seed": 1,
    }


@pytest.fixture(scope="package")
def config(options: dict[str, Any]) -> PruneOptions:
    return resolve(options)


@pytest.fixture(scope="package")
def finished(config: PruneOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run; only to be read."""
    out = tmp_path_factory.mktemp("finished") / "out"
    prune_job(config, out)
    return out


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


@pytest.fixture(autouse=True, scope="package")
def _quickly() -> Iterator[None]:
    """One thread, since runs are compared bit for bit across processes; latencies in no time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_measure, "_SECONDS", 0.0)
        yield
    torch.set_num_threads(threads)
