"""The detector on the page of one's own fitness, run as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lcprune as lp
from docs.pages import ROOT, code_blocks

PAGE = ROOT / "docs" / "own-fitness.md"


def test_the_detector_on_the_page_runs_and_shrinks() -> None:
    torchvision = pytest.importorskip("torchvision")
    (block,) = [text for text in code_blocks(PAGE) if "class Heads" in text]
    assert "trials=200" in block
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = torchvision.models.detection.fcos_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
        )
    image = torch.rand(3, 64, 64, generator=generator)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}
    space: dict[str, object] = {
        "detector": detector,
        "recalibration": [torch.randn(2, 3, 64, 64, generator=generator)],
        "validation": [([image], [target])],
    }
    exec(compile(block.replace("trials=200", "trials=1"), str(Path(PAGE.name)), "exec"), space)
    small, result = space["small"], space["result"]
    assert isinstance(small, type(detector))
    assert isinstance(result, lp.SearchResult)
    assert result.loss > 0
    assert sum(p.numel() for p in small.parameters()) == result.plan.cost["params"]
    assert result.plan.cost["macs"] <= 0.5 * lp.CostModel(space["graph"]).evaluate()["macs"]
    with torch.no_grad():
        (found,) = small.eval()([image])
    assert set(found) == {"boxes", "scores", "labels"}
