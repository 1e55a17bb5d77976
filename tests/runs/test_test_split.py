"""The test split gives figures and decides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from digit_runs import Prune
from lcprune.artifact import PLAN, WEIGHTS
from lcprune.runs import JOURNAL, read_summary
from lcprune.searching import read_journal

FACTORY = """
import dataclasses
from lcprune.data import Images, load_data

def as_it_is():
    data = load_data("digits")
    return dataclasses.replace(data, test=data.train)

def inverted():
    data = load_data("digits")
    pixels, labels = 255 - data.train.pixels, data.train.labels.flip(0)
    return dataclasses.replace(data, test=Images(pixels, labels))
"""


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.thorough),
        {"finalists": 3, "finalist_steps": 5},
    ],
)
def test_another_test_split_gives_the_same_plan_and_weights(
    tmp_path: Path, prune: Prune, changes: dict[str, Any]
) -> None:
    """Both are as long as the training split, so that no index of it runs over."""
    (tmp_path / "splits.py").write_text(FACTORY)
    found = []
    for name in ("as_it_is", "inverted"):
        out = tmp_path / name
        assert prune(out, data=f"{tmp_path / 'splits.py'}:{name}", **changes) == 0
        losses = [trial.loss for trial in read_journal(out / JOURNAL).trials]
        files = [(out / file).read_bytes() for file in (PLAN, WEIGHTS)]
        summary = read_summary(out)
        found.append((losses, summary.finalists, files, summary.scores["after"].top1))
    assert found[0][:3] == found[1][:3]
    assert found[0][3] != found[1][3]
    assert (found[0][1] is not None) == bool(changes)
