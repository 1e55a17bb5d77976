"""Checkpoints that are damaged, foreign or can't be written."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
import torch
from torch import nn

from lcprune._files import read_sealed, write_sealed
from lcprune.errors import RunError
from lcprune.training import TrainingConfig, finetune

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


def test_a_checkpoint_from_before_an_option_goes_on_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    trained(path)
    state = torch.load(io.BytesIO(read_sealed(path)), weights_only=True)
    for name in ("label_smoothing", "mixup", "ema"):
        del state["config"][name]
    del state["average"]
    held = io.BytesIO()
    torch.save(state, held)
    write_sealed(path, held.getvalue())
    trained(path)
    with pytest.raises(RunError, match=r"ema = None, expected 0\.9"):
        trained(path, dataclasses.replace(CONFIG, ema=0.9))
