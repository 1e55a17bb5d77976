"""The strategy on the page of strategies, run as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from docs.pages import ROOT, code_blocks
from lcprune.searching import read_journal
from searching.small_search import GRAPH, MODEL, SALIENCY, Fitness, press_ctrl_c, run

PAGE = ROOT / "docs" / "strategies.md"


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page makes."""
    (block,) = [text for text in code_blocks(PAGE) if "class HillClimb" in text]
    space: dict[str, Any] = {
        "model": MODEL,
        "graph": GRAPH,
        "saliency": SALIENCY,
        "fitness": Fitness(),
    }
    monkeypatch.chdir(tmp_path)
    exec(compile(block, PAGE.name, "exec"), space)
    return space


def test_it_runs_and_climbs(space: dict[str, Any]) -> None:
    result = space["result"]
    assert read_journal("search.sqlite").trials == result.history
    assert len(result.history) == 30
    assert result.loss < result.history[0].loss
    assert result.plan.latent


def test_interrupted_it_ends_as_if_unbroken(space: dict[str, Any], tmp_path: Path) -> None:
    journal = tmp_path / "again.sqlite"
    fitness = Fitness(8, press_ctrl_c)
    options = {"trials": 30, "strategy": space["HillClimb"], "journal": journal}
    with pytest.raises(KeyboardInterrupt):
        run(fitness=fitness, on_trial=fitness.on_trial, **options)
    resumed = run(**options)
    assert 8 <= resumed.resumed < 30
    assert resumed.history == space["result"].history
