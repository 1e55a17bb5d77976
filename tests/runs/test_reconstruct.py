"""The cut network is refitted where nothing is trained, or where it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lcprune as lp
from lcprune.cli import main
from lcprune.runs import PruneOptions, Silent, Summary, prune_job, read_summary

Changes = dict[str, Any]


class Stages(Silent):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, text: str) -> None:
        self.lines.append(text)


def pruned(options: Changes, out: Path, **changes: Any) -> tuple[Summary, list[str]]:
    reporter = Stages()
    asked = PruneOptions.of(options | {"trials": 2, "budget": ["macs=40%"]} | changes)
    return prune_job(asked, out, reporter=reporter), reporter.lines


def test_it_is_done_where_nothing_is_trained_and_helps(options: Changes, tmp_path: Path) -> None:
    summary, lines = pruned(options, tmp_path / "out", finetune_epochs=0)
    scores = summary.scores
    assert list(scores) == ["before", "pruned", "reconstructed", "after"]
    assert scores["reconstructed"].top1 > scores["pruned"].top1 + 1  # type: ignore[operator]
    assert scores["after"] == scores["reconstructed"]
    assert [line for line in lines if line.startswith("reconstructed: ")]
    assert read_summary(tmp_path / "out").scores == scores
    lp.load(tmp_path / "out")


@pytest.mark.parametrize(
    "changes",
    [
        {"finetune_epochs": 0, "reconstruct": False},
        {"finetune_epochs": 1},
        {"finetune_epochs": 0, "recalibrate_images": 1},
    ],
)
def test_otherwise_it_is_not(options: Changes, tmp_path: Path, changes: Changes) -> None:
    summary, lines = pruned(options, tmp_path / "out", **changes)
    assert list(summary.scores) == ["before", "pruned", "after"]
    assert not [line for line in lines if line.startswith("reconstructed")]


def test_too_few_images_are_told_where_it_is_asked_for(options: Changes, tmp_path: Path) -> None:
    with pytest.raises(lp.InputError, match="two samples or more"):
        pruned(options, tmp_path / "out", reconstruct=True, recalibrate_images=1)


def test_the_command_line_takes_it_and_its_table_has_a_row(
    options: Changes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "prune", "digits_resnet", "--data", "digits", "--weights", options["weights"],
        "--budget", "macs=50%", "--trials", "1", "--recalibrate-images", "100",
        "--fitness-images", "100", "--finetune-epochs", "1", "--reconstruct",
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(command) == 0
    assert "reconstructed, not trained" in capsys.readouterr().out
