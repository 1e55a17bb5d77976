"""Ten lines that prune a model of one's own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

import lcprune as lp
from examples.loading import FOLDER, load_example
from oracle import check, randomise


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example("own_model")


def test_the_ten_lines_are_ten() -> None:
    text = (FOLDER / "own_model.py").read_text(encoding="utf-8")
    inside = text.partition("# Ten lines from here")[2].partition("# ... to here.")[0]
    lines = [line for line in inside.splitlines()[1:] if line.strip()]
    assert len(lines) == 10


def test_the_whole_job_on_little_data(example: ModuleType, tmp_path: Path) -> None:
    outcome = example.run(tmp_path, samples=512, trials=3, epochs=4, seed=0)
    assert outcome.plan.cost["macs"] <= 0.5 * outcome.macs_before
    chance = 100 / example.CLASSES
    assert min(outcome.before, outcome.after) > 1.5 * chance
    images, _ = example.stripes(8, 5)
    again = lp.load(tmp_path, outcome.model)
    with torch.no_grad():
        assert torch.equal(again(images), outcome.small(images))
    sizes = [sum(p.numel() for p in m.parameters()) for m in (outcome.small, outcome.model)]
    assert sizes[0] == outcome.plan.cost["params"] < sizes[1]


def test_every_filter_but_the_logits_can_go(example: ModuleType) -> None:
    model = randomise(example.Net(), 0)
    images, _ = example.stripes(2, 0)
    graph = lp.trace(model, images)
    assert {u.tensor for u in graph.untouched} == {"head.weight"}
    for seed in range(3):
        seen = check(model, images, seed, graph)
        assert seen.error <= 1e-9
        assert seen.effect > 1e-3


def test_stripes_follow_their_seed_and_have_all_directions(example: ModuleType) -> None:
    images, labels = example.stripes(400, 3)
    assert torch.equal(images, example.stripes(400, 3)[0])
    assert not torch.equal(images, example.stripes(400, 4)[0])
    assert set(labels.tolist()) == set(range(example.CLASSES))
