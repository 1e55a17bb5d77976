"""The commands in two processes, as ``accelerate launch`` starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lcprune.cli import main

TRAIN = "train digits_resnet --data digits --epochs 2 --train-dtype float32 --hold-out 10 --seed 4"
PRUNE = (
    "prune digits_resnet --data digits --budget macs=50% --trials 4 --recalibrate-images 100 "
    "--fitness-images 100 --search-dtype float32 --train-dtype float32 --finetune-epochs 1"
)


def in_two_processes(*arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"
    quiet = "--num_cpu_threads_per_process", "1", "--main_process_port", "0"
    settings = "--mixed_precision", "no", "--dynamo_backend", "no"
    return subprocess.run(
        [sys.executable, "-m", *launcher, *quiet, *settings, "-m", "lcprune", *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


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
    one, two = (load_file(out / "model.safetensors") for out in (tmp_path / "one", trained))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)
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
    assert (one / "plan.json").read_bytes() == (two / "plan.json").read_bytes()
    weights = [load_file(out / "model.safetensors") for out in (one, two)]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-4)


def test_an_error_of_the_user_is_told_once(tmp_path: Path) -> None:
    result = in_two_processes(
        *TRAIN.replace("digits_resnet", "no_such_model").split(), "--out", str(tmp_path / "out")
    )
    assert result.returncode != 0
    assert result.stderr.count("error: unknown model") == 1
    assert not (tmp_path / "out").exists()
