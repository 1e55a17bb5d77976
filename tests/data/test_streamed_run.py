"""A pruning run on images that are read from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.trees import WNIDS, write_imagenet
from lcprune.cli import main
from lcprune.errors import RunError
from lcprune.runs import PruneOptions, Silent, prune_job

NETWORK = """
from torch import nn

def small(classes=3):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )
"""


class Interrupted(Silent):
    """Leaves a run when its first stage is done."""

    def stage(self, text: str) -> None:
        raise KeyboardInterrupt


def options(root: Path) -> dict[str, Any]:
    return {
        "model": f"{root / 'network.py'}:small",
        "data": f"imagenet:{root / 'images'}@100",
        "weights": "random",
        "budget": ["macs=70%"],
        "criterion": "taylor",
        "trials": 3,
        "recalibrate_images": 6,
        "fitness_images": 6,
        "search_dtype": "float32",
        "train_dtype": "float32",
        "batch_size": 4,
        "finetune_epochs": 1,
    }


def test_from_files_to_a_finished_run_and_not_with_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "images").mkdir()
    write_imagenet(tmp_path / "images", flat=True, count=5)
    config, out = PruneOptions.of(options(tmp_path)), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prune_job(config, out, reporter=Interrupted())
    file = tmp_path / "images" / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    before = file.read_bytes()
    file.write_bytes(before + b"\0")
    with pytest.raises(RunError, match="the data are not those that the run began with"):
        prune_job(config, out, resume=True)
    file.write_bytes(before)
    summary = prune_job(config, out, resume=True)
    assert summary.scores["after"].top1 is not None
    assert main(["evaluate", str(out), "--trust-factory", "--data", config.data]) == 0
    assert "top-1 of 4 test images" in capsys.readouterr().out
