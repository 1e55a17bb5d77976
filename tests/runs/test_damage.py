"""Whatever happens to the files of a run, going on with it is right or says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from damage import (
    DAMAGES,
    Damage,
    a_directory,
    a_flip_in_the_middle,
    a_link_to_nowhere,
    a_pickle,
    emptied,
    flipped,
    longer,
    removed,
    trace_of,
    truncated,
    without_its_end,
    zeros,
)
from digit_runs import outcome, quickly
from lcprune.artifact import ARTIFACT, PLAN, WEIGHTS
from lcprune.cli import main
from lcprune.runs import (
    BASE,
    BASE_CHECKPOINT,
    CHECKPOINT,
    GRAPH,
    JOURNAL,
    RUN,
    SUMMARY,
    PruneOptions,
    prune_job,
)
from order import few

OPTIONS = {
    "model": "digits_resnet",
    "data": "digits",
    "weights": "random",
    "budget": ["macs=50%"],
    "trials": 4,
    "recalibrate_images": 60,
    "fitness_images": 60,
    "search_dtype": "float32",
    "train_dtype": "float32",
    "base_epochs": 1,
    "finetune_epochs": 1,
    "seed": 1,
}
RESULTS = (PLAN, WEIGHTS, ARTIFACT, GRAPH, SUMMARY)


def named(value: str | Damage) -> str:
    return value if isinstance(value, str) else value.__name__


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended; only to be copied."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with quickly():
        prune_job(PruneOptions.of(OPTIONS), out)
    return out


@pytest.fixture(scope="module")
def of_another_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("other") / "out"
    with quickly():
        prune_job(PruneOptions.of(OPTIONS | {"seed": 2}), out)
    return out


@pytest.fixture
def out(tmp_path: Path, finished: Path) -> Path:
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def contents(directory: Path) -> dict[str, object]:
    return {
        path.name: path.read_bytes() if path.is_file() else path.is_symlink()
        for path in directory.iterdir()
    }


def refused(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that ends in 2, names a file and changes nothing."""
    before = contents(path.parent)
    capsys.readouterr()
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path.parent) in error
    assert path.name in error
    assert contents(path.parent) == before
    assert not trace_of(path).exists()
    return error


def goes_on(out: Path, finished: Path) -> bool:
    return main(["prune", "--out", str(out), "--resume"]) == 0 and outcome(out) == outcome(finished)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in (*RESULTS, RUN)
        for damage in DAMAGES
        if not (damage is removed and name in (SUMMARY, RUN))  # an unfinished run, or none
    ],
    ids=named,
)
def test_a_finished_run_with_a_damaged_result_does_not_tell_it_again(
    out: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Damage
) -> None:
    damage(out / name)
    refused(out / name, capsys, "prune", "--out", str(out), "--resume")


@pytest.mark.parametrize("name", RESULTS)
def test_a_finished_run_with_a_result_of_another_does_not_tell_it_again(
    out: Path, of_another_seed: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    shutil.copy(of_another_seed / name, out / name)
    refused(out / name, capsys, "prune", "--out", str(out), "--resume")


def test_no_flipped_byte_of_a_record_or_a_summary_goes_unseen(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (RUN, SUMMARY):
        content = (out / name).read_bytes()
        for place in range(0, len(content), 29):
            if name == RUN and content[place : place + 1].isspace():
                continue  # between the words of JSON one space is as good as another
            flipped(out / name, place, 1 + place % 255)
            refused(out / name, capsys, "prune", "--out", str(out), "--resume")
            (out / name).write_bytes(content)


@pytest.mark.parametrize("name", [WEIGHTS, PLAN, ARTIFACT])
@pytest.mark.parametrize("damage", [a_flip_in_the_middle, a_pickle])
def test_a_damaged_result_is_not_evaluated(
    out: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Damage
) -> None:
    damage(out / name)
    refused(out / name, capsys, "evaluate", str(out), "--data", "digits")


def test_evaluating_needs_the_saved_model_alone(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top1 = json.loads((out / SUMMARY).read_text())["scores"]["after"]["top1"]
    for name in (RUN, JOURNAL, CHECKPOINT, BASE, BASE_CHECKPOINT, SUMMARY):
        zeros(out / name)
    assert main(["evaluate", str(out), "--data", "digits"]) == 0
    assert f"{top1:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (JOURNAL, truncated),
        (JOURNAL, zeros),
        (JOURNAL, a_pickle),
        (JOURNAL, a_directory),
        (CHECKPOINT, truncated),
        (CHECKPOINT, emptied),
        (CHECKPOINT, a_pickle),
        (CHECKPOINT, a_directory),
        (BASE, truncated),
        (BASE, a_pickle),
        (BASE, a_directory),
        (RUN, a_flip_in_the_middle),
        (RUN, emptied),
        (WEIGHTS, a_directory),
    ],
    ids=named,
)
def test_an_unfinished_run_with_a_damaged_file_says_so(
    out: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Damage
) -> None:
    (out / SUMMARY).unlink()
    damage(out / name)
    refused(out / name, capsys, "prune", "--out", str(out), "--resume")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (JOURNAL, removed),
        (CHECKPOINT, a_link_to_nowhere),
        (PLAN, truncated),
        *few(
            [
                (JOURNAL, emptied),
                (JOURNAL, longer),
                (JOURNAL, without_its_end),
                (CHECKPOINT, removed),
                (BASE, removed),
                (BASE_CHECKPOINT, zeros),
                (WEIGHTS, a_pickle),
                (ARTIFACT, zeros),
            ],
            default=0,
        ),
    ],
    ids=named,
)
def test_an_unfinished_run_does_again_what_is_lost(
    out: Path, finished: Path, name: str, damage: Damage
) -> None:
    (out / SUMMARY).unlink()
    damage(out / name)
    assert goes_on(out, finished)


def test_a_flipped_byte_in_a_checkpoint_is_seen(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / SUMMARY).unlink()
    a_flip_in_the_middle(out / CHECKPOINT)
    refused(out / CHECKPOINT, capsys, "prune", "--out", str(out), "--resume")


def test_a_flipped_byte_in_the_base_is_seen(out: Path) -> None:
    (out / SUMMARY).unlink()
    a_flip_in_the_middle(out / BASE)
    before = contents(out)
    assert main(["prune", "--out", str(out), "--resume"]) == 2
    assert contents(out) == before


def test_what_an_error_advises_mends_the_run(
    out: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_flip_in_the_middle(out / WEIGHTS)
    line = refused(out / WEIGHTS, capsys, "prune", "--out", str(out), "--resume")
    assert f"remove {out / SUMMARY}" in line
    (out / SUMMARY).unlink()
    assert goes_on(out, finished)

    (out / SUMMARY).unlink()
    zeros(out / JOURNAL)
    line = refused(out / JOURNAL, capsys, "prune", "--out", str(out), "--resume")
    assert "remove it" in line
    (out / JOURNAL).unlink()
    assert goes_on(out, finished)

    a_flip_in_the_middle(out / RUN)
    line = refused(out / RUN, capsys, "prune", "--out", str(out), "--resume")
    assert "--force" in line
    prune_job(PruneOptions.of(OPTIONS), out, force=True)
    assert outcome(out) == outcome(finished)
