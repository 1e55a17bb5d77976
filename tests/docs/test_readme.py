"""The Python of the README runs as it stands, given the names that it presupposes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lcprune as lp
from docs.pages import ROOT, code_blocks

BLOCKS = code_blocks(ROOT / "README.md")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")
    (example,) = BLOCKS
    smaller = {"torchvision/resnet50": "torchvision/resnet18", "trials=400": "trials=2"}
    for old, new in smaller.items():
        assert old in example
        example = example.replace(old, new)
    monkeypatch.chdir(tmp_path)
    model = torchvision.models.resnet18(weights=None).eval()
    example_input = torch.randn(2, 3, 32, 32)
    names = {
        "model": model,
        "example_input": example_input,
        "fitness": lambda small: float(small(example_input).square().mean().detach()),
        "batches": [example_input],
        "train_loader": [(example_input, torch.tensor([0, 1]))],
    }
    before = lp.CostModel(lp.trace(model, example_input)).evaluate()["macs"]
    exec(compile(example, "README.md", "exec"), names)
    small = names["small"]
    assert lp.CostModel(lp.trace(small, example_input)).evaluate()["macs"] <= before / 2
    assert float(names["error"]) <= 1e-9  # type: ignore[arg-type]
