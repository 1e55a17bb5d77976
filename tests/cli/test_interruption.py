"""Whatever ends a run, it goes on and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lcprune.artifact import (
    CHECKPOINT,
    JOURNAL,
    RUN,
    SUMMARY,
    RunRecord,
    RunState,
    locked,
    read_run,
    run_state,
    update_run,
)
from lcprune.cli import _commands, main
from lcprune.runs import PruneOptions, _stages, _train, prune_job, resolve
from lcprune.searching import read_journal

from .conftest import Prune
from .interrupting import StopAt, outcome


def run_until_killed(out: Path, options: dict[str, Any], where: str, step: int) -> None:
    script = Path(__file__).with_name("interrupting.py")
    command = [sys.executable, str(script), str(out), json.dumps(options), where, str(step)]
    result = subprocess.run(command, capture_output=True, check=False, timeout=300)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()


@pytest.mark.parametrize(
    ("where", "step", "trials"),
    [
        ("search", 4, 4),
        ("candidate", 6, 5),
        ("batch", 15, 8),  # of 12 an epoch: in the middle of the second
        ("summary", 1, 8),
    ],
)
def test_a_killed_run_ends_as_the_unbroken_one(
    tmp_path: Path, finished: Path, options: dict[str, Any], where: str, step: int, trials: int
) -> None:
    out = tmp_path / "out"
    run_until_killed(out, options, where, step)
    assert run_state(out) is RunState.UNFINISHED
    assert len(read_journal(out / JOURNAL).trials) == trials
    assert main(["prune", "--out", str(out), "--resume"]) == 0
    assert outcome(out) == outcome(finished)
    assert read_journal(out / JOURNAL).trials == read_journal(finished / JOURNAL).trials


def test_a_run_killed_while_its_base_is_trained(tmp_path: Path, options: dict[str, Any]) -> None:
    options = options | {"weights": "random", "base_epochs": 2, "finetune_epochs": 1, "trials": 3}
    prune_job(resolve(options), tmp_path / "unbroken")
    run_until_killed(tmp_path / "killed", options, "training", 1)
    assert main(["prune", "--out", str(tmp_path / "killed"), "--resume"]) == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")


@pytest.mark.parametrize(("stage", "step"), [("search", 3), ("fine-tuning", 2)])
def test_ctrl_c_ends_in_130_and_the_line_that_goes_on(
    tmp_path: Path,
    finished: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    step: int,
) -> None:
    out = tmp_path / "an out"
    with monkeypatch.context() as patch:
        patch.setattr(_commands, "OnConsole", lambda *_: StopAt(stage, step, signal.SIGINT))
        assert prune(out) == 130
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    line = captured.err.strip().partition("to go on: ")[2]
    assert line.startswith("lcprune prune")
    assert main(shlex.split(line)[1:]) == 0
    assert outcome(out) == outcome(finished)


def test_ctrl_c_before_anything_is_written(
    tmp_path: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("lcprune.runs._prune_job.prepare", interrupted)
    assert prune(tmp_path / "out") == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def unfinished(tmp_path: Path, finished: Path) -> Path:
    """A copy of a finished run that lost its end."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / SUMMARY).unlink()
    return out


def test_an_unfinished_run_is_not_overwritten(
    tmp_path: Path, finished: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    out = unfinished(tmp_path, finished)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert prune(out) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.strip().endswith(f"lcprune prune --out {shlex.quote(str(out))} --resume")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 3}, "seed"),
        ({"budget": ["macs=40%"]}, "budget"),
        ({"trials": 9, "seed": 2}, "seed"),
    ],
)
def test_a_resume_with_other_options_is_refused(
    tmp_path: Path,
    finished: Path,
    prune: Prune,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    key: str,
) -> None:
    out = unfinished(tmp_path, finished)
    assert prune(out, "--resume", **changes) == 2
    assert f"another {key}" in capsys.readouterr().err


def test_a_resume_with_the_same_options_is_fine(
    tmp_path: Path, finished: Path, prune: Prune
) -> None:
    out = unfinished(tmp_path, finished)
    assert prune(out, "--resume") == 0
    assert outcome(out) == outcome(finished)


def test_a_resume_of_a_finished_run_tells_its_result_again(
    finished: Path, config: PruneOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert main(["prune", "--out", str(finished), "--resume"]) == 0
    assert "MACs" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_the_journal_of_another_run_is_refused(
    tmp_path: Path,
    finished: Path,
    config: PruneOptions,
    prune: Prune,
    options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    prune_job(resolve(options | {"seed": 2, "finetune_epochs": 0, "trials": 2}), other)
    out = unfinished(tmp_path, finished)
    shutil.copy(other / JOURNAL, out / JOURNAL)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["prune", "--out", str(out), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "another run" in error
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("key", ["base_weights_sha256", "data_sha256"])
def test_other_weights_or_data_under_resume_are_refused(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    out = unfinished(tmp_path, finished)
    update_run(out, read_run(out), **{key: "0" * 64})
    assert main(["prune", "--out", str(out), "--resume"]) == 2
    assert "can't resume" in capsys.readouterr().err


def test_the_precision_chosen_once_holds(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run takes what an earlier process measured, and never measures again."""
    out = unfinished(tmp_path, finished)
    record = read_run(out)
    configuration = {**record.configuration, "search_dtype": "auto", "train_dtype": "auto"}
    chosen = {
        "precision": {"dtype": "float32", "channels_last": True, "batch": 50},
        "training_precision": {"dtype": "bfloat16", "channels_last": False},
    }
    state = {**record.state, **chosen}
    (out / RUN).write_text(RunRecord(record.command, configuration, state).to_json())
    (out / JOURNAL).unlink()
    (out / CHECKPOINT).unlink()
    monkeypatch.setattr(_stages, "choose_precision", None)
    monkeypatch.setattr(_train, "choose_training_precision", None)
    assert main(["prune", "--out", str(out), "--resume"]) == 0
    assert {key: read_run(out).state[key] for key in chosen} == chosen
    assert json.loads((out / SUMMARY).read_text())["dtype_search"] == "float32"


def test_a_second_process_is_told_of_the_first(
    tmp_path: Path, finished: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fcntl", reason="no advisory locks on this system")
    out = unfinished(tmp_path, finished)
    with locked(out):
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        assert prune(out, "--resume") == 2
        assert prune(out, "--force") == 2
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    error = capsys.readouterr().err
    assert error.count("\n") == 2
    assert error.count(f"another process is at work in {out}: process {os.getpid()} on ") == 2
