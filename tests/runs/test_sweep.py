"""A sweep is several runs, of which most start from others; whatever ends it, it goes on."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digit_runs import as_arguments, outcome, quickly
from lcprune.artifact import load, read_plan
from lcprune.cli import main
from lcprune.errors import InputError
from lcprune.models import state_sha256
from lcprune.runs import (
    GRAPH,
    JOURNAL,
    RUN,
    SUMMARY,
    SWEEP,
    Advance,
    PruneOptions,
    RunRecord,
    RunState,
    Silent,
    _problem,
    _prune,
    check_run,
    prune_job,
    read_run,
    read_summary,
    read_sweep,
    run_state,
    sweep_job,
)
from lcprune.searching import read_journal
from order import few

NAMES = ("macs-25", "macs-40", "macs-60")
MOMENTS = [
    ("base", "training", 1),
    ("macs-25", "search", 3),
    ("macs-40", "search", 6),
    ("macs-60", "search", 1),
    ("macs-60", "fine-tuning", 1),
]
"""Where a sweep was left: the run, its stage and the step of that."""


@pytest.fixture(scope="module")
def swept(options: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a sweep that takes seconds, in no good order."""
    changes = {"weights": "random", "base_epochs": 1, "finetune_epochs": 1, "trials": 6}
    changes |= {"budget": ["params=70%"], "sweep": ["macs=60%,25%", "macs=40%"]}
    return options | changes


class Moments(Silent):
    """Copies a sweep's directory at each of ``MOMENTS``, as a killed process would leave it."""

    def __init__(self, out: Path, into: Path) -> None:
        self.out, self.into, self.at = out, into, "base"

    def stage(self, text: str) -> None:
        if text.startswith("run "):
            self.at = text.split(": ")[1].split(",")[0]
            shutil.copytree(self.out, self.into / f"before {self.at}")

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Advance]:
        def advance(done: float, text: str) -> None:
            if (self.at, name, done) in MOMENTS:
                shutil.copytree(self.out, self.into / f"{self.at} {name}")

        yield advance


@pytest.fixture(scope="module")
def left(swept: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep left at all those moments, and ``whole``; only to be copied."""
    into = tmp_path_factory.mktemp("sweeps")
    out = into / "whole"
    with quickly():
        sweep_job(PruneOptions.of(swept), out, reporter=Moments(out, into))
    shutil.copytree(out, into / "before the end")
    (into / "before the end" / SWEEP).unlink()
    return into


@pytest.fixture(scope="module")
def whole(left: Path) -> Path:
    """The directory of a finished sweep; only to be read."""
    return left / "whole"


@pytest.fixture
def copied(tmp_path: Path, whole: Path) -> Path:
    out = tmp_path / "sweep"
    shutil.copytree(whole, out)
    return out


def figures(out: Path) -> dict[str, Any]:
    """What ``sweep.json`` says, without what a clock said."""
    found = json.loads((out / SWEEP).read_text())
    for point in found["points"]:
        for key in ("search_seconds", "latency", "on_front"):
            del point[key]
    return found


def results(out: Path) -> list[Any]:
    return [figures(out), *(outcome(out / name) for name in NAMES)]


def test_each_run_is_a_whole_one_within_its_bounds(whole: Path, swept: dict[str, Any]) -> None:
    sweep = read_sweep(whole)
    assert sweep.resource == "macs"
    assert sweep.budget == ("params=70%",)
    assert [point.directory for point in sweep.points] == list(NAMES)
    assert {path.name for path in whole.iterdir() if path.is_dir()} == set(NAMES)
    for point in sweep.points:
        summary = read_summary(whole / point.directory)
        assert dict(summary.costs) == {k: v for k, v in point.costs.items() if k != "weights"}
        assert dict(summary.scores) == dict(point.scores)
        share = float(point.directory.split("-")[1]) / 100
        for name, bound in (("macs", share), ("params", 0.7)):
            cost = summary.costs[name]
            assert cost.met
            assert cost.limit == int(bound * cost.before)
        small = load(whole / point.directory)
        assert point.costs["weights"].after == sum(t.nbytes for t in small.state_dict().values())
        assert check_run(whole / point.directory, resume=True) is RunState.FINISHED
    assert check_run(whole, resume=True) is RunState.FINISHED


def test_two_search_with_all_trials_and_the_third_starts_from_them(whole: Path) -> None:
    sweep = read_sweep(whole)
    assert [point.trials for point in sweep.points] == [6, 6, 2]
    assert [point.start for point in sweep.points] == [(), (), ("macs-40", "macs-25")]
    between, nearest = read_journal(whole / "macs-60" / JOURNAL).trials
    plan = read_plan(whole / "macs-40")
    assert (between.note["origin"], nearest.note["origin"]) == ("start", "start")
    assert [tuple(row) for row in nearest.note["latent"]] == list(plan.latent.values())


def test_a_run_that_starts_from_none_is_that_of_a_budget_alone(
    tmp_path: Path, whole: Path, swept: dict[str, Any]
) -> None:
    alone = swept | {"sweep": [], "budget": ["macs=25%", "params=70%"]}
    prune_job(PruneOptions.of(alone), tmp_path / "alone")
    assert outcome(tmp_path / "alone") == outcome(whole / "macs-25")


def test_the_base_network_is_trained_traced_and_evaluated_once(
    tmp_path: Path, swept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    evaluated: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            calls[args[4] if name == "train" else name] += 1
            if name == "evaluate_top1":
                evaluated[state_sha256(args[0])] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, called)

    for name in ("load_data", "build", "trace", "repair"):
        counted(_problem, name)
    for name in ("train", "evaluate_top1"):
        counted(_prune, name)
    changes = {"trials": 1, "sweep": ["macs=60%,40%"]}
    sweep_job(PruneOptions.of(swept | changes), tmp_path / "out")
    once = ("load_data", "build", "trace", "repair", "training")
    assert {name: calls[name] for name in once} == dict.fromkeys(once, 1)
    assert calls["fine-tuning"] == 2
    assert set(evaluated.values()) == {1}
    assert calls["evaluate_top1"] == 5


@pytest.mark.parametrize(
    "moment",
    [
        "macs-60 search",
        *few(
            [
                "base training",
                "macs-25 search",
                "macs-40 search",
                "before macs-60",
                "macs-60 fine-tuning",
                "before the end",
            ],
            default=0,
        ),
    ],
)
def test_a_sweep_that_was_left_ends_as_the_unbroken_one(
    tmp_path: Path, left: Path, moment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(left / moment, out)
    assert run_state(out) is RunState.UNFINISHED
    model = ["digits_resnet", "--data", "digits", "--budget", "macs=50%"]
    assert main(["prune", *model, "--out", str(out)]) == 2
    line = capsys.readouterr().err.strip().partition("to go on: ")[2]
    assert main(shlex.split(line)[1:]) == 0
    assert results(out) == results(left / "whole")


def test_a_run_of_a_sweep_goes_on_by_itself(tmp_path: Path, left: Path) -> None:
    """What it starts from is its own: nothing beside it is read."""
    out = tmp_path / "macs-60"
    shutil.copytree(left / "macs-60 search" / "macs-60", out)
    assert main(["prune", "--out", str(out), "--resume"]) == 0
    assert outcome(out) == outcome(left / "whole" / "macs-60")


def test_a_run_that_is_lost_is_made_again(copied: Path, whole: Path) -> None:
    shutil.rmtree(copied / "macs-60")
    assert run_state(copied) is RunState.UNFINISHED
    assert main(["prune", "--out", str(copied), "--resume"]) == 0
    assert results(copied) == results(whole)


def test_a_finished_sweep_tells_its_result_again(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def times() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in copied.rglob("*")}

    before = times()
    assert main(["prune", "--out", str(copied), "--resume"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("base", *NAMES))
    assert times() == before


@pytest.mark.parametrize("name", [SWEEP, "macs-40/summary.json", "macs-40/model.safetensors"])
def test_damage_is_told_in_a_line(
    copied: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["prune", "--out", str(copied), "--resume"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name.partition("/")[0] in error
    # What the line says helps.
    removed = Path(error.partition("(remove ")[2].partition(",")[0])
    removed.unlink()
    assert main(["prune", "--out", str(copied), "--resume"]) == 0


def test_force_replaces_a_sweep_with_its_runs_and_nothing_else(
    copied: Path, swept: dict[str, Any], options: dict[str, Any]
) -> None:
    (copied / "macs-25" / "notes.txt").write_text("mine")
    (copied / "macs-40" / JOURNAL).unlink()
    changes = {"trials": 1, "finetune_epochs": 0, "sweep": ["macs=60%,50%"]}
    assert main(["prune", *arguments(swept | changes), "--out", str(copied), "--force"]) == 0
    assert [point.directory for point in read_sweep(copied).points] == ["macs-50", "macs-60"]
    folders = {path.name: path for path in copied.iterdir() if path.is_dir()}
    assert set(folders) == {"macs-25", "macs-50", "macs-60"}
    assert [path.name for path in folders["macs-25"].iterdir()] == ["notes.txt"]
    assert read_summary(copied / "macs-60").trials == 1
    # And a run in its place.
    changes = {"trials": 1, "finetune_epochs": 0}
    assert main(["prune", *as_arguments(options | changes), "--out", str(copied), "--force"]) == 0
    assert {path.name for path in copied.iterdir() if path.is_dir()} == {"macs-25"}
    assert not (copied / SWEEP).exists()
    assert run_state(copied) is RunState.FINISHED


def arguments(options: dict[str, Any]) -> list[str]:
    """As of a run, without a list that is empty."""
    return as_arguments({key: value for key, value in options.items() if value != []})


@pytest.mark.parametrize("strategy", ["auto", pytest.param("random", marks=pytest.mark.thorough)])
def test_other_strategies_start_too(tmp_path: Path, swept: dict[str, Any], strategy: str) -> None:
    changes = {"strategy": strategy, "trials": 4, "finetune_epochs": 0, "base_epochs": 0}
    config = PruneOptions.of(swept | changes | {"sweep": ["macs=30%,50%,60%,40%"]})
    sweep = sweep_job(config, tmp_path)
    assert [len(point.start) for point in sweep.points] == [0, 2, 0, 2]
    for point in (sweep.points[1], sweep.points[3]):
        (trial,) = read_journal(tmp_path / point.directory / JOURNAL).trials
        assert trial.note["origin"] == "start"
    # With one trial the plan is the start: its widths are between those at the other budgets, but
    # for what is filled up.
    low, own, high = (widths(tmp_path / name) for name in ("macs-30", "macs-40", "macs-50"))
    assert (own >= np.minimum(low, high)).all()
    assert low.sum() < own.sum() < high.sum()


def widths(out: Path) -> Any:
    return np.array(
        [family["after"] for family in json.loads((out / GRAPH).read_text())["families"]]
    )


def test_where_nothing_is_learned_nothing_is_started_from(
    tmp_path: Path, swept: dict[str, Any]
) -> None:
    changes = {"compensation": "uniform", "finetune_epochs": 0, "base_epochs": 0}
    changes |= {"sweep": ["macs=60%,40%"]}
    sweep = sweep_job(PruneOptions.of(swept | changes), tmp_path)
    assert {point.start for point in sweep.points} == {()}
    assert {point.trials for point in sweep.points} == {1}


BAD = {
    "two resources": ({"sweep": ["macs=60%,40%", "params=50%,30%"]}, "one resource"),
    "two in one": ({"sweep": ["macs=60%,params=40%"]}, "one resource"),
    "one bound": ({"sweep": ["macs=60%"]}, "--budget macs=60%"),
    "twice the same": ({"sweep": ["macs=60%,40%,60%"]}, "the same"),
    "the same in other words": ({"sweep": ["macs=60%,40%,0.6"]}, "the same"),
    "of one name": ({"sweep": ["macs=60%,40%", "macs=400000,40"]}, "least possible"),
    "out of reach": ({"sweep": ["macs=60%,0.1%"]}, "macs=0.1%: budget can't be met"),
    "out of reach, listed first": ({"sweep": ["macs=0.1%,60%"]}, "macs=0.1%: budget can't be met"),
    "met already": ({"sweep": ["macs=60%,100M"]}, "leaves nothing to prune"),
    "no number": ({"sweep": ["macs=60%,half"]}, "can't be read"),
    "nothing between commas": ({"sweep": ["macs=60%,,40%"]}, "can't be read"),
    "no bounds": ({"sweep": ["macs="]}, "one bound"),
    "no resource": ({"sweep": ["60%,40%"]}, "such as macs=70%"),
    "no such resource": ({"sweep": ["time=60%,40%"]}, "unknown resource"),
    "a unit of another": ({"sweep": ["macs=60%,5mJ"]}, "unknown unit"),
    "bounded besides": ({"sweep": ["macs=60%,40%"], "budget": ["macs=50%"]}, "two bounds on macs"),
    "nothing at all": ({"sweep": [], "budget": []}, "no budget given"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_sweep_is_told_in_a_line_before_anything_is_written(
    tmp_path: Path, swept: dict[str, Any], case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, expected = BAD[case]
    out = tmp_path / "out"
    assert main(["prune", *arguments(swept | changes), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error
    assert not out.exists()


@pytest.mark.parametrize("flags", [[], ["--resume"]], ids=["anew", "resume"])
def test_a_run_is_no_sweep_and_a_sweep_is_no_run(
    copied: Path,
    finished: Path,
    options: dict[str, Any],
    flags: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    sweep = arguments(options | {"budget": [], "sweep": ["macs=60%,40%"]})
    assert main(["prune", *sweep, "--out", str(run), *flags]) == 2
    assert main(["prune", *as_arguments(options), "--out", str(copied), *flags]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    if flags:
        assert all("can't resume with another" in error for error in errors)
    assert main(["evaluate", str(copied), "--data", "digits"]) == 2
    assert main(["export", str(copied)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("holds a sweep" in error and "macs-40" in error for error in errors)


def test_a_run_of_a_sweep_is_evaluated_like_any_other(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(whole / "macs-40"), "--data", "digits"]) == 0
    top1 = read_summary(whole / "macs-40").scores["after"].top1
    assert f"{top1:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--resume", "--force"])
def test_a_link_in_the_place_of_a_run_is_refused(
    copied: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    shutil.move(copied / "macs-40", theirs)
    (copied / "macs-40").symlink_to(theirs)
    (copied / SWEEP).unlink()
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    given = ["digits_resnet", "--data", "digits", "--weights", "random"]
    given += ["--sweep", "macs=60%,40%"]
    given = given if flag == "--force" else []
    assert main(["prune", *given, "--out", str(copied), flag]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "it is a link" in error
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == before


def test_names_that_lead_elsewhere_are_refused(
    copied: Path, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "theirs")
    record = read_run(copied)
    state = {**record.state, "points": ["../theirs"]}
    (copied / RUN).write_text(RunRecord("prune", record.configuration, state).to_json())
    given = ["digits_resnet", "--data", "digits", "--sweep", "macs=60%,40%", "--trials", "1"]
    given += ["--weights", "random", "--finetune-epochs", "0"]
    assert main(["prune", "--out", str(copied), "--resume"]) == 2
    assert "expected names of directories" in capsys.readouterr().err
    # What begins anew leaves alone what the names lead to.
    assert main(["prune", *given, "--out", str(copied), "--force"]) == 0
    assert (tmp_path / "theirs" / SUMMARY).exists()


def test_prune_job_takes_no_sweep(tmp_path: Path, swept: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="sweep_job"):
        prune_job(PruneOptions.of(swept), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        'sweep = "macs=60%,40%"',
        'sweep = ["macs=60%", "macs=40%"]',
        '[sweep]\nmacs = ["60%", "40%"]',
        '[sweep]\nmacs = "60%,40%"',
    ],
)
def test_a_file_may_ask_for_it(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(f'model = "digits_resnet"\ndata = "digits"\nbudget = "macs=50%"\n{text}\n')
    assert main(["prune", "--config", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "two bounds on macs, expected one: 60% or 50%" in capsys.readouterr().err
