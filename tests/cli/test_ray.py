"""``--executor ray``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lcprune.cli import main
from lcprune.searching import read_journal

from .conftest import Prune

pytest.importorskip("ray", reason="Ray is not installed: pip install lcprune[ray]")


@pytest.mark.thorough
def test_workers_of_ray_find_what_one_process_finds(tmp_path: Path, prune: Prune) -> None:
    options: dict[str, Any] = {"strategy": "random", "trials": 4, "finetune_epochs": 0}
    assert prune(tmp_path / "one", **options) == 0
    assert prune(tmp_path / "two", **options, executor="ray", workers=2) == 0
    one, two = (
        {
            trial.digest: trial.loss
            for trial in read_journal(tmp_path / name / "search.sqlite").trials
        }
        for name in ("one", "two")
    )
    assert two == pytest.approx(one, rel=1e-5)
    plans = [(tmp_path / name / "plan.json").read_bytes() for name in ("one", "two")]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"executor": "slurm"}, "executor = 'slurm': expected in-process, ray"),
        ({"executor": "ray", "workers": 0}, "workers = 0: expected at least 1"),
    ],
)
def test_what_ray_cannot_be_asked(
    changes: dict[str, Any],
    message: str,
    tmp_path: Path,
    prune: Prune,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert prune(tmp_path / "out", **changes) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    main(["prune", "--help"])
    text = capsys.readouterr().out
    assert all(option in text for option in ("--executor", "--workers", "--ray-address"))
