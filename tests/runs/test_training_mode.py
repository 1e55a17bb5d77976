"""What a run says of training mode: a line where it can't be followed, and a key of its summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lcprune.runs import PruneOptions, Silent, prune_job

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.norm(self.a(x)).relu()
        {between}
        return self.head(self.b(x).relu().mean((2, 3)))

def net():
    torch.manual_seed(0)
    return Net()
"""


class Told(Silent):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def pruned(between: str, tmp_path: Path, **changes: Any) -> tuple[Any, list[str]]:
    file = tmp_path / "mine.py"
    file.write_text(NETWORK.format(between=between))
    options = {
        "model": f"{file}:net", "weights": "random", "data": "digits", "budget": ("macs=60%",),
        "trials": 2, "recalibrate_images": 64, "fitness_images": 64, "finetune_epochs": 0,
        "finalists": 1, "search_dtype": "float32", "train_dtype": "float32", **changes,
    }  # fmt: skip
    reporter = Told()
    summary = prune_job(PruneOptions.of(options), tmp_path / "out", reporter=reporter)
    return summary, reporter.warnings


def test_training_mode_is_checked_and_says_nothing(tmp_path: Path) -> None:
    summary, warnings = pruned("x = nn.functional.dropout(x, 0.2, self.training)", tmp_path)
    assert summary.training_checked is True
    assert not [line for line in warnings if "training mode" in line]


def test_a_training_forward_that_fails_is_told_in_one_line_and_stands_in_the_summary(
    tmp_path: Path,
) -> None:
    between = "assert not self.training, 'training needs the other package'"
    summary, warnings = pruned(between, tmp_path)
    assert summary.training_checked is False
    (line,) = [line for line in warnings if "training mode" in line]
    assert "AssertionError: training needs the other package" in line
    assert "\n" not in line


def test_a_training_forward_that_can_be_followed_but_not_compared_is_told_too(
    tmp_path: Path,
) -> None:
    between = "x = x + (float('nan') if self.training else 0)"
    summary, warnings = pruned(between, tmp_path)
    assert summary.training_checked is False
    (line,) = [line for line in warnings if "training mode" in line]
    assert "can't be compared" in line
