"""``--processes``: the commands train in several processes, which one process starts.

Rounding grows in float32; ``tests/training`` compares in float64.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lcprune.cli import main
from lcprune.training import TrainingResult

pytestmark = [pytest.mark.xdist_group("processes")]

TRAIN = (
    "train digits_resnet --data digits --epochs 1 --learning-rate 0.01 "
    "--train-dtype float32 --hold-out 10 --seed 4"
)
PRUNE = (
    "prune digits_resnet --data digits --budget macs=50% --trials 4 --recalibrate-images 100 "
    "--fitness-images 100 --search-dtype float32 --train-dtype float32 --finetune-epochs 1 "
    "--learning-rate 0.01 --finalists 2 --finalist-steps 3"
)


@pytest.mark.thorough
def test_two_processes_train_what_one_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in ("1", "2"):
        line = [*TRAIN.split(), "--processes", count, "--out", str(tmp_path / count)]
        assert main(line) == 0
        assert capsys.readouterr().out.count("saved to") == 1
    one, two = (load_file(tmp_path / count / "model.safetensors") for count in ("1", "2"))
    torch.testing.assert_close(two, one, rtol=1e-2, atol=1e-3)
    figures = [json.loads((tmp_path / c / "summary.json").read_text()) for c in ("1", "2")]
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], rel=1e-3)


@pytest.mark.thorough
def test_two_processes_prune_what_one_prunes(tmp_path: Path, weights: Path) -> None:
    for count in ("1", "2"):
        line = [*PRUNE.split(), "--weights", str(weights), "--processes", count]
        assert main([*line, "--out", str(tmp_path / count)]) == 0
    one, two = tmp_path / "1", tmp_path / "2"
    assert (one / "plan.json").read_bytes() == (two / "plan.json").read_bytes()
    finalists = [json.loads((out / "summary.json").read_text())["finalists"] for out in (one, two)]
    assert finalists[0] == finalists[1]
    assert len(finalists[0]) == 2
    weights_of = [load_file(out / "model.safetensors") for out in (one, two)]
    torch.testing.assert_close(weights_of[1], weights_of[0], rtol=1e-2, atol=1e-3)


@pytest.mark.thorough
def test_processes_that_train_print_nothing_of_their_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = f"{PRUNE} --weights random --base-epochs 1 --finalists 1 --processes 2"
    assert main([*line.split(), "--out", str(tmp_path / "out")]) == 0
    assert capfd.readouterr().err == ""


def test_the_number_of_processes_reaches_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def noted(*_: object, processes: int, **__: object) -> TrainingResult:
        asked.append(processes)
        return TrainingResult(())

    monkeypatch.setattr("lcprune.runs._train.finetune", noted)
    for line in (TRAIN, f"{PRUNE} --weights random --base-epochs 1 --finalists 1"):
        out = tmp_path / line.partition(" ")[0]
        assert main([*line.split(), "--processes", "3", "--out", str(out)]) == 0
    assert asked == [3, 3, 3]


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_a_number_of_processes_that_can_not_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: str
) -> None:
    assert main([*TRAIN.split(), "--processes", count, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "processes" in error
    assert not (tmp_path / "out").exists()
