from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from lcprune._files import PARTIAL, sealed_json
from lcprune.artifact import NEW, WEIGHTS
from lcprune.errors import RunError
from lcprune.runs import (
    CHECKPOINT,
    JOURNAL,
    RUN,
    PruneOptions,
    Run,
    RunRecord,
    RunState,
    Silent,
    check_run,
    read_run,
    resume_line,
    run_state,
)
from lcprune.runs._run import begin_run, open_run

OPTIONS = PruneOptions(model="m", data="d", budget=("macs=50%",))
RECORD = RunRecord("prune", {"model": "m", "seed": 0, "budget": ["macs=50%"]})


def make(path: Path, state: str) -> Path:
    """A directory in one of the states that the tests are about."""
    if state != "absent":
        path.mkdir()
    if state == "leftover":
        (path / f"{PARTIAL}1-run.json").write_text("{")
    if state in ("unfinished", "finished"):
        begin_run(path, RECORD)
        (path / JOURNAL).write_text("journal")
        (path / "mine.txt").write_text("the user's")
    if state == "finished":
        Run(path, read_run(path), Silent()).finish("{}")
    if state == "foreign":
        (path / "thesis.tex").write_text("the user's")
    if state == "other run.json":
        (path / RUN).write_text('{"kind": "something else"}')
    return path


def contents(path: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in path.iterdir()} if path.is_dir() else {}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("absent", RunState.EMPTY),
        ("empty", RunState.EMPTY),
        ("leftover", RunState.EMPTY),
        ("unfinished", RunState.UNFINISHED),
        ("finished", RunState.FINISHED),
        ("foreign", RunState.FOREIGN),
        ("other run.json", RunState.FOREIGN),
    ],
)
def test_the_states_of_a_directory(tmp_path: Path, state: str, expected: RunState) -> None:
    assert run_state(make(tmp_path / "out", state)) is expected


@pytest.mark.parametrize(
    ("state", "resume", "force"),
    [
        ("absent", False, False),
        ("absent", True, False),
        ("empty", False, False),
        ("leftover", False, False),
        ("unfinished", True, False),
        ("unfinished", False, True),
        ("finished", False, True),
        ("finished", True, False),
    ],
)
def test_where_a_run_may_begin_or_go_on(
    tmp_path: Path, state: str, resume: bool, force: bool
) -> None:
    out = make(tmp_path / "out", state)
    before = contents(out)
    assert check_run(out, resume=resume, force=force) is run_state(out)
    assert contents(out) == before


@pytest.mark.parametrize(
    ("state", "resume", "force", "message"),
    [
        ("unfinished", False, False, "unfinished"),
        ("finished", False, False, "--force"),
        ("unfinished", True, True, "choose one"),
        ("foreign", False, False, "no run of lcprune"),
        ("foreign", True, False, "no run of lcprune"),
        ("foreign", False, True, "no run of lcprune"),
        ("other run.json", False, True, "no run of lcprune"),
    ],
)
def test_where_it_may_not(
    tmp_path: Path, state: str, resume: bool, force: bool, message: str
) -> None:
    out = make(tmp_path / "out", state)
    before = contents(out)
    with pytest.raises(RunError, match=message) as caught:
        check_run(out, resume=resume, force=force)
    assert "\n" not in str(caught.value)
    assert contents(out) == before


def test_an_unfinished_run_names_the_line_that_goes_on(tmp_path: Path) -> None:
    out = make(tmp_path / "an out", "unfinished")
    with pytest.raises(RunError) as caught:
        check_run(out)
    line = resume_line(out, "prune")
    assert str(caught.value).endswith(line)
    assert shlex.split(line) == ["lcprune", "prune", "--out", str(out), "--resume"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("the user's")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError):
            check_run(out, force=True)
        with pytest.raises(RunError):
            begin_run(out, RECORD)
    assert (tmp_path / "file").read_text() == "the user's"


def test_a_directory_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The superuser may write anywhere, so the answer of the system is given here.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RunError, match="permission"):
        check_run(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_beginning_again_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    out = make(tmp_path / "out", "finished")
    for name in (
        WEIGHTS,
        WEIGHTS + NEW,
        CHECKPOINT,
        JOURNAL + "-wal",
        f"{PARTIAL}7-model.safetensors",
    ):
        (out / name).write_text("old")
    begin_run(out, RunRecord("prune", {"model": "other"}))
    assert sorted(contents(out)) == ["mine.txt", RUN]
    assert read_run(out).configuration == {"model": "other"}


def test_beginning_never_touches_a_foreign_directory(tmp_path: Path) -> None:
    out = make(tmp_path / "out", "foreign")
    before = contents(out)
    with pytest.raises(RunError):
        begin_run(out, RECORD)
    assert contents(out) == before


def test_the_state_grows_and_the_configuration_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    begin_run(out, RECORD)
    run = Run(out, RECORD, Silent())
    found = iter([{"dtype": "bfloat16"}, "never asked"])
    for _ in range(2):
        precision = run.once("precision", Mapping[str, str], lambda: next(found))
        assert precision == {"dtype": "bfloat16"}
    assert run.same("weights", "a", "weights") == "a"
    assert read_run(out) == run.record
    assert run.record.state == {"precision": {"dtype": "bfloat16"}, "weights": "a"}
    assert run.record.configuration == RECORD.configuration
    later = Run(out, read_run(out), Silent())
    assert later.once("precision", Mapping[str, str], lambda: None) == {"dtype": "bfloat16"}
    with pytest.raises(RunError, match="the weights are not those that the run began with"):
        later.same("weights", "b", "weights")


def test_the_first_difference_is_named() -> None:
    assert RECORD.first_difference({"budget": ["macs=50%"], "seed": 0, "model": "m"}) is None
    assert RECORD.first_difference({**RECORD.configuration, "seed": 1}) == "seed"
    assert RECORD.first_difference({**RECORD.configuration, "budget": [], "seed": 1}) == "seed"
    assert RECORD.first_difference({**RECORD.configuration, "new": 1}) == "new"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        json.dumps({"kind": "lcprune run", "schema": 99}),
        json.dumps({"kind": "lcprune run", "schema": 1}),
        json.dumps({"kind": "lcprune run", "schema": True}),
        json.dumps({"kind": "lcprune run", "schema": "2"}),
        sealed_json({"kind": "lcprune run"}),
        sealed_json({"kind": "lcprune run", "command": 1, "configuration": {}, "state": {}}),
        sealed_json({"kind": "lcprune run", "command": "x", "configuration": [], "state": {}}),
        sealed_json({"command": "x", "configuration": {}, "state": {}}),
        sealed_json({**json.loads(RECORD.to_json()), "schema": 3}),
    ],
)
def test_a_record_that_cannot_be_read_is_a_run_error(tmp_path: Path, text: str) -> None:
    (tmp_path / RUN).write_text(text)
    with pytest.raises(RunError) as caught:
        read_run(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / RUN) in str(caught.value)


def test_a_record_of_a_later_version_names_it(tmp_path: Path) -> None:
    values = {**json.loads(RECORD.to_json()), "schema": 7, "versions": {"lcprune": "3.1.4"}}
    del values["checksum"]
    (tmp_path / RUN).write_text(sealed_json(values))
    with pytest.raises(RunError, match=r"schema 7, written by lcprune 3\.1\.4"):
        read_run(tmp_path)


def test_a_damaged_run_is_only_replaced_where_it_can_be_told(tmp_path: Path) -> None:
    told, untold = make(tmp_path / "told", "unfinished"), make(tmp_path / "untold", "unfinished")
    (told / RUN).write_text((told / RUN).read_text().replace('"seed": 0', '"seed": 1'))
    (untold / RUN).write_text("")
    for out, advice in ((told, "--force"), (untold, "choose another --out")):
        before = contents(out)
        for resume in (False, True):
            with pytest.raises(RunError, match=advice):
                check_run(out, resume=resume)
        assert contents(out) == before
    assert check_run(told, force=True) is RunState.UNFINISHED
    begin_run(told, RECORD)
    assert sorted(contents(told)) == ["mine.txt", RUN]
    before = contents(untold)
    with pytest.raises(RunError, match="choose another --out"):
        check_run(untold, force=True)
    with pytest.raises(RunError, match="choose another --out"):
        begin_run(untold, RECORD)
    assert contents(untold) == before


def opened(out: Path, record: RunRecord | None = None) -> Run:
    with open_run(out, OPTIONS, "prune", record, Silent()) as run:
        return run


def test_a_run_at_work_keeps_others_out(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no advisory locks on this system")
    out = tmp_path / "out"
    with open_run(out, OPTIONS, "prune", None, Silent()) as run:
        for how in ({}, {"resume": True}, {"force": True}):
            with pytest.raises(RunError, match=f"{out} is held by process {os.getpid()} on"):
                check_run(out, **how)
        with pytest.raises(RunError, match="held by"):
            opened(out)
        assert run.once("found", int, lambda: 1) == 1
    assert [path.name for path in out.iterdir()] == [RUN]
    assert opened(out, read_run(out)).record.state == {"found": 1}
    with pytest.raises(RunError, match="another process began meanwhile"):
        opened(out)
    assert read_run(out).state == {"found": 1}


def test_what_killed_processes_had_begun_to_write_is_removed_from_a_run_alone(
    tmp_path: Path,
) -> None:
    begin_run(tmp_path / "run", RECORD)
    (tmp_path / "theirs").mkdir()
    for name in ("run", "theirs"):
        (tmp_path / name / f"{PARTIAL}7-0-model.safetensors").write_text("half")
        (tmp_path / name / "thesis.tex").write_text("the user's")
    opened(tmp_path / "run", RECORD)
    assert sorted(contents(tmp_path / "run")) == [RUN, "thesis.tex"]
    with pytest.raises(RunError, match="no run of lcprune"):
        opened(tmp_path / "theirs")
    assert len(contents(tmp_path / "theirs")) == 2


@pytest.mark.parametrize("name", [f"{PARTIAL}run.lock", f"{PARTIAL}{JOURNAL}.lock"])
def test_a_lock_that_cannot_be_taken_is_told_before_anything_is_removed(
    tmp_path: Path, name: str
) -> None:
    out = make(tmp_path / "out", "finished")
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    (out / name).symlink_to(theirs)
    before = contents(out)
    with pytest.raises(RunError, match="a link or no ordinary file"):
        check_run(out, force=True)
    assert contents(out) == before


def test_what_a_killed_save_leaves_is_no_foreign_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{PARTIAL}artifact.lock").touch()
    assert run_state(out) is RunState.EMPTY


@pytest.mark.parametrize("name", [CHECKPOINT, JOURNAL, WEIGHTS, f"{PARTIAL}1-run.json"])
def test_a_directory_in_the_place_of_a_file_is_told_before_anything_is_removed(
    tmp_path: Path, name: str
) -> None:
    out = make(tmp_path / "out", "finished")
    (out / name).unlink(missing_ok=True)
    (out / name).mkdir()
    before = {p.name for p in out.iterdir()}
    with pytest.raises(RunError, match=f"{name}: it is a directory"):
        begin_run(out, RECORD)
    assert {p.name for p in out.iterdir()} == before
