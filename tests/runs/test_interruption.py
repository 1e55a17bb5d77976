"""Whatever ends a run, it goes on and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from digit_runs import STAGES, Prune, outcome
from lcprune._files import PARTIAL
from lcprune._lock import locked
from lcprune.cli import _commands, main
from lcprune.runs import (
    CHECKPOINT,
    JOURNAL,
    RUN,
    SUMMARY,
    PruneOptions,
    RunRecord,
    RunState,
    _prune,
    _train,
    prune_job,
    read_run,
    run_state,
)
from lcprune.searching import read_journal
from order import few

from .interrupting import StopAt


def as_it_is(_: Path) -> None:
    """Between two steps."""


def with_leftovers(out: Path) -> None:
    """In the middle of a write."""
    for name in (RUN, CHECKPOINT, "model.safetensors"):
        (out / f"{PARTIAL}{os.getpid()}-0-{name}").write_bytes(b"half")


def without_its_last_finding(out: Path) -> None:
    """Before the last thing that it found out was on disk."""
    record = read_run(out)
    state = dict(record.state)
    if state:
        state.popitem()
    (out / RUN).write_text(RunRecord(record.command, record.configuration, state).to_json())


@pytest.mark.parametrize(
    ("stage", "how"),
    [
        *((stage, as_it_is) for stage in STAGES),
        ("search", with_leftovers),
        *few(
            [
                ("summary", with_leftovers),
                ("finalists", without_its_last_finding),
                ("summary", without_its_last_finding),
            ],
            default=0,
        ),
    ],
)
def test_a_run_that_was_left_ends_as_the_unbroken_one(
    tmp_path: Path, half_finished: Path, stage: str, how: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(half_finished / stage, out)
    how(out)
    assert run_state(out) is RunState.UNFINISHED
    assert main(["prune", "--out", str(out), "--resume"]) == 0
    assert outcome(out) == outcome(half_finished / "unbroken")
    one, other = (read_journal(d / JOURNAL) for d in (out, half_finished / "unbroken"))
    assert one.trials == other.trials
    assert not [path for path in out.iterdir() if path.name.startswith(PARTIAL)]


@pytest.mark.parametrize(
    ("begin", "where", "step"),
    [
        ("search", "candidate", 2),
        pytest.param(None, "training", 1, marks=pytest.mark.thorough),
        pytest.param("search", "finalists", 1, marks=pytest.mark.thorough),
        pytest.param("fine-tuning", "batch", 5, marks=pytest.mark.thorough),
        pytest.param("summary", "summary", 1, marks=pytest.mark.thorough),
    ],
)
def test_a_killed_process_loses_what_was_in_flight(
    tmp_path: Path,
    half_finished: Path,
    every_stage: dict[str, Any],
    begin: str | None,
    where: str,
    step: int,
) -> None:
    """``kill -9`` at one moment of each stage; begun from where another was left."""
    out = tmp_path / "out"
    if begin is not None:
        shutil.copytree(half_finished / begin, out)
    script = Path(__file__).with_name("interrupting.py")
    command = [sys.executable, str(script), str(out), json.dumps(every_stage), where, str(step)]
    result = subprocess.run(command, capture_output=True, check=False, timeout=300)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    assert run_state(out) is RunState.UNFINISHED
    assert main(["prune", "--out", str(out), "--resume"]) == 0
    assert outcome(out) == outcome(half_finished / "unbroken")


@pytest.mark.parametrize(
    ("stage", "step"), [("search", 3), pytest.param("fine-tuning", 2, marks=pytest.mark.thorough)]
)
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

    monkeypatch.setattr(_prune.Problem, "of", interrupted)
    assert prune(tmp_path / "out") == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def unfinished(tmp_path: Path, finished: Path) -> Path:
    """A copy of a finished run that lost its end."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / SUMMARY).unlink()
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_an_unfinished_run_is_not_overwritten(
    unfinished: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(unfinished)
    assert prune(unfinished) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.strip().endswith(f"lcprune prune --out {shlex.quote(str(unfinished))} --resume")
    assert contents(unfinished) == before


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 3}, "seed"),
        ({"budget": ["macs=40%"]}, "budget"),
        ({"seed": 2, "trials": 9}, "trials"),
    ],
)
def test_a_resume_with_other_options_is_refused(
    unfinished: Path,
    prune: Prune,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    key: str,
) -> None:
    assert prune(unfinished, "--resume", **changes) == 2
    assert f"another {key}" in capsys.readouterr().err


def test_a_resume_with_the_same_options_is_fine(
    unfinished: Path, finished: Path, prune: Prune
) -> None:
    assert prune(unfinished, "--resume") == 0
    assert outcome(unfinished) == outcome(finished)


def test_a_resume_of_a_finished_run_tells_its_result_again(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert main(["prune", "--out", str(finished), "--resume"]) == 0
    assert "MACs" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_the_journal_of_another_run_is_refused(
    tmp_path: Path, unfinished: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    prune_job(PruneOptions.of(options | {"seed": 2, "finetune_epochs": 0, "trials": 2}), other)
    shutil.copy(other / JOURNAL, unfinished / JOURNAL)
    before = contents(unfinished)
    assert main(["prune", "--out", str(unfinished), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "another run" in error
    assert error.count("\n") == 1
    assert contents(unfinished) == before


@pytest.mark.parametrize("key", ["base_weights_sha256", "data_sha256"])
def test_other_weights_or_data_under_resume_are_refused(
    unfinished: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    record = read_run(unfinished)
    state = {**record.state, key: "0" * 64}
    (unfinished / RUN).write_text(RunRecord("prune", record.configuration, state).to_json())
    assert main(["prune", "--out", str(unfinished), "--resume"]) == 2
    assert "can't resume" in capsys.readouterr().err


def test_the_precision_chosen_once_holds(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run takes what an earlier process chose, and never measures again."""
    record = read_run(unfinished)
    configuration = {**record.configuration, "search_dtype": "auto", "train_dtype": "auto"}
    chosen = {
        "search precision": {"dtype": "float32", "channels_last": True, "batch": 50},
        "training precision": {"dtype": "bfloat16", "channels_last": False},
    }
    state = {**record.state, **chosen}
    (unfinished / RUN).write_text(RunRecord(record.command, configuration, state).to_json())
    (unfinished / JOURNAL).unlink()
    (unfinished / CHECKPOINT).unlink()
    monkeypatch.setattr(_prune, "choose_precision", None)
    monkeypatch.setattr(_train, "choose_training_precision", None)
    assert main(["prune", "--out", str(unfinished), "--resume"]) == 0
    assert {key: read_run(unfinished).state[key] for key in chosen} == chosen
    summary = json.loads((unfinished / SUMMARY).read_text())
    assert summary["dtype_search"] == "float32"
    assert summary["choices"] == {
        "search": chosen["search precision"],
        "training": chosen["training precision"],
    }


def test_a_second_process_is_told_of_the_first(
    unfinished: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fcntl", reason="no advisory locks on this system")
    with locked(unfinished / f"{PARTIAL}run.lock", "it"):
        before = contents(unfinished)
        assert prune(unfinished, "--resume") == 2
        assert prune(unfinished, "--force") == 2
        assert contents(unfinished) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 2
    assert error.count(f"{unfinished} is held by process {os.getpid()} on ") == 2


def test_a_link_in_the_place_of_the_lock_is_refused_and_its_target_untouched(
    tmp_path: Path, unfinished: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "thesis.tex"
    theirs.write_text("chapter one")
    (unfinished / f"{PARTIAL}run.lock").symlink_to(theirs)
    assert prune(unfinished, "--resume") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "it is a link" in error
    assert theirs.read_text() == "chapter one"
