"""The whole job on a published network and real images."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from lcprune.cli import main
from lcprune.runs import read_summary

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not os.environ.get("LCPRUNE_DATA"), reason="LCPRUNE_DATA is not set"),
]
PER_CLASS = {"train": 30, "test": 20}


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images of every class of CIFAR-10 as a tree of PNG files."""
    root = tmp_path_factory.mktemp("cifar10")
    taken: dict[str, int] = {}
    for archive in sorted(Path(os.environ["LCPRUNE_DATA"], "data").glob("cifar10-*.zip")):
        with zipfile.ZipFile(archive) as source:
            for name in sorted(source.namelist()):
                split, _, rest = name.partition("/")
                folder = name.rpartition("/")[0]
                if rest and taken.get(folder, 0) < PER_CLASS[split]:
                    source.extract(name, root)
                    taken[folder] = taken.get(folder, 0) + 1
    return root


def test_a_published_network_is_pruned(tmp_path: Path, cifar10: Path) -> None:
    weights = Path(os.environ["LCPRUNE_DATA"], "weights", "cifar10_resnet20.safetensors")
    out = tmp_path / "out"
    arguments = ["prune", "cifar_resnet20", "--data", f"cifar10:{cifar10}", "--out", str(out)]
    arguments += ["--weights", str(weights), "--budget", "macs=50%", "--trials", "2"]
    arguments += ["--recalibrate-images", "150", "--fitness-images", "150"]
    assert main([*arguments, "--finetune-epochs", "1", "--learning-rate", "0.01"]) == 0
    summary = read_summary(out)
    # 91.7 % on all test images; 200 of them and a wrong normalisation would show.
    before, pruned = (summary.scores[name].top1 for name in ("before", "pruned"))
    assert before is not None
    assert before > 85
    assert 0.49 < summary.costs["macs"].ratio <= 0.5
    assert pruned is not None
    assert pruned > 20
    assert main(["evaluate", str(out), "--data", f"cifar10:{cifar10}"]) == 0
