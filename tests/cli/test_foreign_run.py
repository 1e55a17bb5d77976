"""A run directory that somebody else made: nothing in it is run unasked, followed or waited for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from digit_runs import as_arguments, outcome
from lcprune._files import PARTIAL, sealed_json
from lcprune.artifact import ARTIFACT, PLAN, WEIGHTS, versions
from lcprune.cli import main
from lcprune.runs import (
    CHECKPOINT,
    GRAPH,
    JOURNAL,
    RUN,
    SUMMARY,
    TrainOptions,
    read_run,
)

thorough = pytest.mark.thorough

EVIL = "from pathlib import Path\nPath(__file__).with_name('executed').touch()\n"


@pytest.fixture
def half(tmp_path: Path, finished: Path) -> Path:
    """A run that lacks its summary."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / SUMMARY).unlink()
    return tmp_path / "run"


def changed(out: Path, **changes: Any) -> None:
    """Change ``run.json`` in any way; its checksum is right."""
    raw = json.loads((out / RUN).read_text())
    del raw["checksum"], raw["schema"]
    for key, value in changes.items():
        raw[key] = {**raw[key], **value} if isinstance(value, Mapping) else value
    (out / RUN).write_text(sealed_json(raw))


def resumed(out: Path, *flags: str) -> int:
    return main(["prune", "--out", str(out), "--resume", *flags])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith("error: ")
    assert error.removesuffix("\n").isprintable()
    return error


@pytest.mark.parametrize("key", ["model", "data"])
@pytest.mark.parametrize("how", ["file", "module", "file in the directory"])
def test_resume_does_not_run_the_code_that_a_directory_names(
    half: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    how: str,
) -> None:
    monkeypatch.chdir(half.parent)
    where = half if how == "file in the directory" else half.parent
    (where / "evil.py").write_text(EVIL + "def make(**_):\n    raise SystemExit(3)\n")
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    spec = "evil:make" if how == "module" else f"{where / 'evil.py'}:make"
    changed(half, configuration={key: spec})
    before = {path.name: path.read_bytes() for path in half.iterdir()}
    for flags in ((), ("--seed", "1"), ("--device", "cpu")):
        assert resumed(half, *flags) == 2
        error = one_line(capsys)
        assert spec in error
        assert "--trust-factory" in error
    assert not (where / "executed").exists()
    assert {path.name: path.read_bytes() for path in half.iterdir()} == before
    # Asked for, by name or by the flag, it is run.
    named = [spec, "--data", "digits"] if key == "model" else ["digits_resnet", "--data", spec]
    assert main(["prune", *named, "--out", str(half), "--resume"]) == 2
    assert "SystemExit" in one_line(capsys)
    assert (where / "executed").exists()
    assert resumed(half, "--trust-factory") == 2
    assert "SystemExit" in one_line(capsys)


def test_code_that_a_configuration_file_of_the_user_names_is_the_users(
    half: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = f"{half.parent / 'own.py'}:make"
    (half.parent / "own.py").write_text(EVIL + "def make(**_):\n    raise SystemExit(3)\n")
    (half.parent / "run.toml").write_text(f"model = '{spec}'\n")
    changed(half, configuration={"model": spec})
    assert resumed(half, "--config", str(half.parent / "run.toml")) == 2
    assert "SystemExit" in one_line(capsys)
    assert (half.parent / "executed").exists()


def test_other_code_than_that_of_the_run_is_not_run(
    half: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (half.parent / "evil.py").write_text(EVIL)
    changed(half, configuration={"model": f"{half.parent / 'evil.py'}:make"})
    assert main(["prune", "digits_resnet", "--out", str(half), "--resume"]) == 2
    assert "can't resume with another model" in one_line(capsys)
    assert not (half.parent / "executed").exists()


def test_a_cluster_that_a_directory_names_is_not_joined(
    half: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(half, configuration={"executor": "ray", "ray_address": "ray://evil.example:10001"})
    assert resumed(half) == 2
    assert "ray_address" in one_line(capsys)


def test_the_same_holds_for_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evil.py").write_text(EVIL)
    out = tmp_path / "run"
    out.mkdir()
    options = TrainOptions(model="digits_resnet", data=f"{tmp_path / 'evil.py'}:make").as_json()
    values = {"kind": "lcprune run", "command": "train", "configuration": options, "state": {}}
    (out / RUN).write_text(sealed_json({**values, "versions": versions()}))
    assert main(["train", "--out", str(out), "--resume"]) == 2
    assert "--trust-factory" in one_line(capsys)
    assert not (tmp_path / "executed").exists()


def test_known_names_with_a_colon_need_no_trust(half: Path) -> None:
    for data in ("cifar10:images", "imagefolder:images"):
        changed(half, configuration={"data": data})
        assert read_run(half).foreign == {}
    for data in ("digits:make", "cifar11:make", "./cifar10.py:make"):
        changed(half, configuration={"data": data})
        assert read_run(half).foreign == {"data": data}
    for model in ("cifar_resnet20:make", "torchvision.models:resnet18", "timm/x.py:make"):
        changed(half, configuration={"model": model, "data": "digits"})
        assert read_run(half).foreign == {"model": model}


def test_an_interrupted_run_of_own_code_says_all_that_it_takes_to_go_on(
    tmp_path: Path,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own.py").write_text(
        "from lcprune.models import build\n"
        "def make(classes, input_shape):\n"
        "    return build('digits_resnet', classes=classes, input_shape=input_shape)\n"
    )
    changes = {"model": f"{tmp_path / 'own.py'}:make", "trials": 2, "finetune_epochs": 0}
    with monkeypatch.context() as patch:
        patch.setattr(
            "lcprune.runs._prune.Stages._search", lambda *_: signal.raise_signal(signal.SIGINT)
        )
        line = ["prune", *as_arguments(options | changes), "--out", str(tmp_path / "out")]
        assert main(line) == 130
    error = capsys.readouterr().err
    told = (
        f"interrupted; to go on: lcprune prune --out {tmp_path / 'out'} --resume --trust-factory\n"
    )
    assert error == told
    assert main(told.split("lcprune ")[1].split()) == 0


@pytest.mark.parametrize("wrote", ["0.0.1", "99.0", None])
def test_a_run_of_another_version_is_told(
    half: Path, finished: Path, capsys: pytest.CaptureFixture[str], wrote: str | None
) -> None:
    raw = json.loads((half / RUN).read_text())
    own = {**raw["versions"], "lcprune": wrote} if wrote else {}
    del raw["checksum"], raw["schema"]
    (half / RUN).write_text(sealed_json({**raw, "versions": own}))
    assert resumed(half) == 0
    error = capsys.readouterr().err
    assert error.startswith(
        f"warning: the run in {half} was begun by lcprune {wrote or 'of another'}"
    )
    assert error.count("\n") == 1
    assert outcome(half)[:2] == outcome(finished)[:2]
    assert read_run(half).versions == own


def test_a_run_of_another_schema_is_refused(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    raw = {**json.loads((half / RUN).read_text()), "schema": 7}
    del raw["checksum"]
    raw["checksum"] = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()
    (half / RUN).write_text(json.dumps(raw))
    assert resumed(half) == 2
    assert "of schema 7, written by lcprune" in one_line(capsys)


WRONG: dict[str, dict[str, Any]] = {
    "a command that is none": {"command": "rm -rf ~"},
    "a command with escapes": {"command": "\x1b[2J\n"},
    "no command": {"command": None},
    "a configuration that is none": {"configuration": None},
    "a list": {"configuration": ["model"]},
    "an unknown key": {"configuration": {"evil": 1}},
    "an unknown key with escapes": {"configuration": {"\x1b[2J\n": 1}},
    "trials of text": {"configuration": {"trials": "many"}},
    "trials without end": {"configuration": {"trials": 10**400}},
    "a rate without end": {"configuration": {"learning_rate": 1e300}},
    "a seed that is a list": {"configuration": {"seed": [1]}},
    "a model that is a number": {"configuration": {"model": 3}},
    "a model with escapes": {"configuration": {"model": "\x1b[2J\n"}},
    "data that are an object": {"configuration": {"data": {"a": 1}}},
    "weights that are a pipe": {"configuration": {"weights": "/dev/stdin"}},
    "weights that are endless": {"configuration": {"weights": "/dev/zero"}},
    "a state that is none": {"state": None},
    "a state of text": {"state": "done"},
    "accuracy of text": {"state": {"top1_before": "\x1b[2Jbest"}},
    "accuracy without end": {"state": {"top1_before": 10**400}},
    "accuracy that is a list": {"state": {"top1_pruned": [1.0]}},
    "a hash that is a number": {"state": {"data_sha256": 3}},
    "weights of another hash": {"state": {"base_weights_sha256": "\x1b[2J"}},
    "versions that are a list": {"versions": [1]},
    "versions that are numbers": {"versions": {"lcprune": 3}},
    "a manifest of text": {"state": {"results_sha256": "all"}},
}


@pytest.mark.parametrize("what", WRONG)
def test_a_record_of_wrong_types_is_one_line_though_its_checksum_is_right(
    half: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    if what == "a manifest of text":
        (half / SUMMARY).write_text("{}")
    changed(half, **WRONG[what])
    assert resumed(half) == 2
    assert "unexpected" not in one_line(capsys)


@pytest.mark.parametrize(
    "change",
    [
        {"costs": {"macs": {"unit": "", "before": 10**400}}},
        {"model": 3},
        {"trials": "many"},
        {"latency": [{"engine": 3}]},
        {"scores": {"before": {"top1": "best"}}},
        {"scores": {}},
        {"extra": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_summary_of_wrong_types_is_one_line_though_its_hash_is_right(
    half: Path, finished: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    import hashlib

    text = json.dumps({**json.loads((finished / SUMMARY).read_text()), **change})
    (half / SUMMARY).write_text(text)
    manifest = json.loads((half / RUN).read_text())["state"]["results_sha256"]
    manifest = {**manifest, SUMMARY: hashlib.sha256(text.encode()).hexdigest()}
    changed(half, state={"results_sha256": manifest})
    assert resumed(half) == 2
    one_line(capsys)


def test_a_summary_with_escapes_and_markup_is_shown_and_not_obeyed(
    half: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import hashlib

    name = "[/b]\x1b]0;evil\x07\x1b[2J\r\n\u202ename"
    text = json.dumps({**json.loads((finished / SUMMARY).read_text()), "model": name})
    (half / SUMMARY).write_text(text)
    manifest = json.loads((half / RUN).read_text())["state"]["results_sha256"]
    manifest = {**manifest, SUMMARY: hashlib.sha256(text.encode()).hexdigest()}
    changed(half, state={"results_sha256": manifest})
    assert resumed(half) == 0
    out = capsys.readouterr().out
    assert r"[/b]\x1b]0;evil\x07\x1b[2J\r\n\u202ename on digits" in " ".join(out.split())
    assert all(line.isprintable() for line in out.splitlines())


class HangError(Exception):
    pass


@pytest.fixture
def at_most_a_minute() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.usefixtures("at_most_a_minute")
@pytest.mark.parametrize(
    "what",
    [pipe, *(pytest.param(kind, marks=thorough) for kind in (device, unix_socket, directory))],
)
@pytest.mark.parametrize(
    "name",
    [RUN, JOURNAL, f"{JOURNAL}-journal", f"{JOURNAL}-wal", CHECKPOINT, GRAPH, PLAN, WEIGHTS,
     ARTIFACT, SUMMARY, f"{PARTIAL}run.lock", f"{PARTIAL}{JOURNAL}.lock", f"{PARTIAL}old"],
)  # fmt: skip
def test_what_is_no_file_in_a_run_is_not_waited_for(
    half: Path,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    what: Callable[[Path], None],
) -> None:
    """Going on with it ends well or in one line; so does everything else that looks at it."""
    (half / name).unlink(missing_ok=True)
    monkeypatch.chdir(half.parent)  # names of sockets are short
    what(Path(half.name) / name)
    for line in (
        ["prune", "--out", "run", "--resume"],
        ["prune", "digits_resnet", "--data", "digits", "--budget", "macs=50%", "--out", "run"],
        ["evaluate", "run", "--data", "digits"],
    ):
        code = main(line)
        error = capsys.readouterr().err
        assert code in (0, 2)
        assert error.count("\n") == (code == 2), error
        assert "unexpected" not in error


@pytest.mark.parametrize(
    "name",
    [RUN, JOURNAL, f"{JOURNAL}-journal", CHECKPOINT, PLAN, WEIGHTS, ARTIFACT, GRAPH, SUMMARY,
     f"{PARTIAL}run.lock", f"{PARTIAL}{JOURNAL}.lock", f"{PARTIAL}1-0-{RUN}"],
)  # fmt: skip
@pytest.mark.parametrize("flags", [("--resume",), pytest.param(("--force",), marks=thorough)])
def test_no_link_in_a_run_is_written_through(
    half: Path,
    prune: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    name: str,
    flags: tuple[str, ...],
) -> None:
    """Locks, the journal and every file that is replaced: what a link leads to stays as it was."""
    theirs = half.parent / "thesis.tex"
    theirs.write_text("chapter one")
    if name not in (RUN,) or flags == ("--force",):
        (half / name).unlink(missing_ok=True)
        (half / name).symlink_to(theirs)
    code = prune(half, *flags, trials=8)
    error = capsys.readouterr().err
    assert code in (0, 2), error
    assert error.count("\n") == (code == 2)
    assert theirs.read_text() == "chapter one"
    assert not theirs.is_symlink()
