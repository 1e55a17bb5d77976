"""Ends this process, or interrupts it, at a chosen step of a run."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lcprune.artifact import PLAN, SUMMARY, WEIGHTS
from lcprune.data import AugmentedBatches
from lcprune.fitness import CrossEntropy
from lcprune.runs import Silent, _measure, prune_job, resolve
from lcprune.runs import _prune_job as _job
from lcprune.runs._reporter import Advance

# What a run takes is not what it does.
VARYING = {
    "search_seconds",
    "finetune_seconds",
    "latency_ms_before",
    "latency_ms_after",
    "peak_rss_mb",
}


def outcome(out: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    """Plan, weights and summary of a finished run, without what may vary."""
    summary = json.loads((out / SUMMARY).read_text())
    kept = {key: value for key, value in summary.items() if key not in VARYING}
    return (out / PLAN).read_bytes(), (out / WEIGHTS).read_bytes(), kept


class StopAt(Silent):
    """Sends ``number`` to this process when step ``step`` of ``stage`` is done."""

    def __init__(self, stage: str, step: int, number: int) -> None:
        self._stage = stage
        self._step = step
        self._number = number

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Advance]:
        def advance(done: int, text: str) -> None:
            if (name, done) == (self._stage, self._step):
                os.kill(os.getpid(), self._number)

        yield advance


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(owner: Any, name: str, call: int) -> None:
    """Replace a method by one that ends the process at its ``call``-th call."""
    original = getattr(owner, name)
    calls = 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            die()
        return original(*args, **kwargs)

    setattr(owner, name, counting)


def main() -> None:
    """Arguments: the run's directory, its configuration as JSON, and where it shall die."""
    out, options, where, step = sys.argv[1:]
    torch.set_num_threads(1)
    _measure._SECONDS = 0.0
    reporter = Silent()
    if where == "candidate":
        die_at_call(CrossEntropy, "__call__", int(step))
    elif where == "batch":
        die_at_call(AugmentedBatches, "_augment", int(step))
    elif where == "summary":
        die_at_call(_job.artifact, "write_summary", int(step))
    else:
        reporter = StopAt(where, int(step), signal.SIGKILL)
    prune_job(resolve(json.loads(options)), Path(out), reporter=reporter)


if __name__ == "__main__":
    main()
