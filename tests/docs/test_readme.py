"""The Python of the front page, run as it stands there: fewer trials, and a smaller network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import lcprune as lp
from docs.pages import ROOT, code_blocks
from lcprune.models import build


def test_the_front_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = code_blocks(ROOT / "README.md")
    block, trials = re.subn(r"trials=\d+", "trials=2", block)
    block, factories = re.subn(r'factory="[\w/]+"', 'factory="cifar_resnet20"', block)
    assert (trials, factories) == (1, 1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 32, 32, generator=generator)
    labels = torch.arange(16) % 10

    def fitness(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return float(functional.cross_entropy(model.eval()(images), labels))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32))
    space: dict[str, object] = {
        "model": model,
        "example_input": images[:1],
        "fitness": fitness,
        "batches": [images],
        "train_loader": [(images, labels)],
    }
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), space)
    result, small = space["result"], space["small"]
    assert isinstance(result, lp.SearchResult)
    assert isinstance(small, torch.nn.Module)
    assert result.trials == 2
    assert 0 < result.plan.cost["macs"] <= 0.5 * lp.CostModel(space["graph"]).evaluate()["macs"]
    assert sum(p.numel() for p in small.parameters()) == result.plan.cost["params"]
    assert isinstance(space["error"], float)
    assert space["error"] <= 1e-9
