"""One run that ends at every kind of write, and is killed from outside, as in the bench."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "endurance.py"


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="by the means of Linux")
def test_a_run_that_ends_at_every_kind_of_write() -> None:
    result = subprocess.run(
        [sys.executable, str(BENCH), "--kinds", "--fresh", "0", "--real", "2", "--no-row"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    row = json.loads(result.stdout)
    assert row["equal"]
    by_kind = row["by_kind"]
    assert sum(count for kind, count in by_kind.items() if kind.startswith("kill -9")) == 2
    assert row["kills"] >= 2 + 11
    told = " ".join(by_kind)
    for word in ("half of write", "fsync", "replace", "half of sqlite pwrite"):
        assert word in told
    for name in ("run.json", "base.safetensors", "search.sqlite", "checkpoint.pt", "plan.json"):
        assert name in told
    for name in ("model.safetensors", "artifact.json", "summary.json"):
        assert name in told
