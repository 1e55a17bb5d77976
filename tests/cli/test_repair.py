"""A network that hides sizes from the tracer is pruned all the same, and the commands say how."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcprune.artifact import read_plan
from lcprune.cli import main
from lcprune.runs import read_summary

from .conftest import Prune

SOURCE = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.odd = nn.Conv2d(12, 16, 3, padding=1)
        self.blocks = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = torch.relu(self.odd(torch.relu(self.stem(x))))
        if int(str(x.shape[1])) != 16:
            raise RuntimeError("expected 16 channels")
        x = torch.relu(self.blocks(x))
        assert int(str(x.shape[1])) % 2 == 0
        return self.head(x.mean((2, 3)))

def odd(classes=10, **_):
    return Odd(classes)
"""
REASON = "the slimmed model fails when these channels go: RuntimeError: expected 16 channels"
LEFT = f"1 family left alone after a check: odd ({REASON})"
TIED = "blocks: channels go in blocks of 2, after a check"


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "odd_network.py"
    path.write_text(SOURCE)
    return f"{path}:odd"


def test_prune_says_what_a_check_found_and_publishes_a_right_network(
    model: str, prune: Prune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prune(out, model=model, weights="random", budget=["macs=70%"], finetune_epochs=1) == 0
    printed = capsys.readouterr().out.splitlines()
    assert LEFT in printed
    assert TIED in printed
    plan, summary = read_plan(out), read_summary(out)
    assert ("odd.weight", 0) not in plan.kept
    assert len(plan.kept.get(("blocks.weight", 0), range(8))) % 2 == 0
    assert summary.verify_error is not None
    assert summary.verify_error <= 1e-9


def test_inspect_lists_what_a_check_found_with_its_reason(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", model, "--input", "1x1x8x8"]) == 0
    printed = capsys.readouterr().out
    joined = " ".join(printed.replace("│", " ").split())
    assert LEFT in joined
    assert TIED in joined
    assert "odd.weight" in joined.partition("Not prunable")[2]
