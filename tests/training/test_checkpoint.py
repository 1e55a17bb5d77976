"""Checkpoints that are damaged, foreign or can't be written."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lcprune.errors import InputError, RunError
from lcprune.training import EpochReport, TrainingConfig, TrainingHook, finetune

CONFIG = TrainingConfig(epochs=1)
LOADER = [(torch.randn(4, 2), torch.tensor([0, 1, 1, 0]))]


def trained(checkpoint: Path, config: TrainingConfig = CONFIG, width: int = 2) -> None:
    finetune(nn.Linear(2, width), LOADER, config=config, checkpoint=checkpoint, resume=True)


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    trained(path)
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"momentum = 0\.9, expected 0\.5"):
        trained(path, dataclasses.replace(CONFIG, momentum=0.5))
    assert path.read_bytes() == before


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    trained(path)
    with pytest.raises(RunError, match="another model: 'weight' differs"):
        trained(path, width=3)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    trained(path)
    whole = path.read_bytes()
    for content in (b"", b"noise" * 100, whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"is damaged.*remove it") as caught:
            trained(path)
        assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    for content in ({"schema": 2, "config": {}}, {"weight": torch.zeros(2)}, [1]):
        torch.save(content, path)
        with pytest.raises(RunError):
            trained(path)


def test_nothing_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "training.pt"
    trained(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["training.pt"]
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left"):
        finetune(nn.Linear(2, 2), LOADER, config=CONFIG, checkpoint=path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["training.pt"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_disk_that_fills_leaves_the_old_file_whole(tmp_path: Path, share: float) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "training.pt"
    loader = [(torch.randn(4, 64), LOADER[0][1])]
    finetune(nn.Linear(64, 64), loader, config=CONFIG, checkpoint=path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(before)), hard))
    try:
        with pytest.raises(RunError) as caught:
            finetune(nn.Linear(64, 64), loader, config=CONFIG, checkpoint=path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"can't write {path}: File too large"
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["training.pt"]
    finetune(nn.Linear(64, 64), loader, config=CONFIG, checkpoint=path, resume=True)


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="can't write"):
        trained(tmp_path / "none" / "training.pt")


class Counting(TrainingHook):
    """Remembers the steps that it saw."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def after_step(self, model: nn.Module, optimizer: object, step: int) -> None:
        self.steps.append(step)

    def state_dict(self) -> dict[str, object]:
        return {"steps": self.steps, "seen": torch.tensor(self.steps)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert state["seen"].tolist() == state["steps"]
        self.steps = list(state["steps"])


def test_a_hook_goes_on_where_it_was_and_no_other_does(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    config = TrainingConfig(epochs=3)

    class StopError(Exception):
        pass

    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            raise StopError

    def run(*hooks: TrainingHook, **options: Any) -> None:
        finetune(
            nn.Linear(2, 2), LOADER * 2, config=config, hooks=hooks, checkpoint=path, **options
        )

    with pytest.raises(StopError):
        run(Counting(), on_epoch=stop)
    with pytest.raises(RunError, match=r"with hooks = \['DivergenceWatch', 'Counting'\], expected"):
        run(resume=True)
    resumed = Counting()
    run(resumed, resume=True)
    assert resumed.steps == list(range(6))


@pytest.mark.parametrize(
    "state", [{"mean": np.float64(1)}, {"at": Path("x")}, {"of": threading.Lock()}]
)
def test_a_hooks_state_that_could_not_be_read_again_is_refused(
    tmp_path: Path, state: dict[str, Any]
) -> None:
    class Odd(TrainingHook):
        def state_dict(self) -> dict[str, Any]:
            return state

    path = tmp_path / "training.pt"
    with pytest.raises(InputError, match="the state of the hook Odd can't be in a") as caught:
        finetune(nn.Linear(2, 2), LOADER, config=CONFIG, checkpoint=path, hooks=[Odd()])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
