"""The commands in two processes, as ``torchrun`` starts them.

Rounding grows in float32; ``tests/training`` compares in float64.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lcprune._files import read_sealed
from lcprune.cli import main

TRAIN = (
    "train digits_resnet --data digits --epochs 1 --learning-rate 0.01 "
    "--train-dtype float32 --hold-out 10 --seed 4"
)
PRUNE = (
    "prune digits_resnet --data digits --budget macs=50% --trials 4 --recalibrate-images 100 "
    "--fitness-images 100 --search-dtype float32 --train-dtype float32 --finetune-epochs 1 "
    "--learning-rate 0.01 --finalists 2 --finalist-steps 3"
)


def in_two_processes(*arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
    return subprocess.run(
        [sys.executable, *launcher, "-m", "lcprune", *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def processes_of(out: Path) -> int:
    """How many took part in a training, by its checkpoint."""
    state = torch.load(io.BytesIO(read_sealed(out / "checkpoint.pt")), weights_only=True)
    return 1 + len(state["others"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that two processes trained."""
    out = tmp_path_factory.mktemp("two") / "base"
    result = in_two_processes(*TRAIN.split(), "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("saved to") == 1
    return out


def test_two_processes_train_what_one_trains(trained: Path, tmp_path: Path) -> None:
    assert main([*TRAIN.split(), "--out", str(tmp_path / "one")]) == 0
    assert [processes_of(out) for out in (tmp_path / "one", trained)] == [1, 2]
    one, two = (load_file(out / "model.safetensors") for out in (tmp_path / "one", trained))
    torch.testing.assert_close(two, one, rtol=1e-2, atol=1e-3)
    figures = [
        json.loads((out / "summary.json").read_text()) for out in (tmp_path / "one", trained)
    ]
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], rel=1e-3)


def test_two_processes_prune_what_one_prunes(trained: Path, tmp_path: Path) -> None:
    line = [*PRUNE.split(), "--weights", str(trained / "model.safetensors"), "--out"]
    result = in_two_processes(*line, str(tmp_path / "two"))
    assert result.returncode == 0, result.stderr
    assert main([*line, str(tmp_path / "one")]) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert [processes_of(out) for out in (one, two)] == [1, 2]
    assert (one / "plan.json").read_bytes() == (two / "plan.json").read_bytes()
    finalists = [json.loads((out / "summary.json").read_text())["finalists"] for out in (one, two)]
    assert finalists[0] == finalists[1]
    assert len(finalists[0]) == 2
    weights = [load_file(out / "model.safetensors") for out in (one, two)]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-2, atol=1e-3)


def test_an_error_of_the_user_is_told_once(tmp_path: Path) -> None:
    result = in_two_processes(
        *TRAIN.replace("digits_resnet", "no_such_model").split(), "--out", str(tmp_path / "out")
    )
    assert result.returncode != 0
    assert result.stderr.count("error: unknown model") == 1
    assert not (tmp_path / "out").exists()
