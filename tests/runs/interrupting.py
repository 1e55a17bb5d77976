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

from lcprune.data import AugmentedBatches
from lcprune.fitness import CrossEntropy
from lcprune.runs import Advance, PruneOptions, Run, Silent, _summary, prune_job


class StopAt(Silent):
    """Sends ``number`` to this process when step ``step`` of ``stage`` is done."""

    def __init__(self, stage: str, step: int, number: int) -> None:
        self._stage = stage
        self._step = step
        self._number = number

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Advance]:
        def advance(done: float, text: str) -> None:
            if (name, done) == (self._stage, self._step):
                os.kill(os.getpid(), self._number)

        yield advance


def die_at_call(owner: Any, name: str, call: int) -> None:
    """Replace a method by one that ends the process at its ``call``-th call."""
    original = getattr(owner, name)
    calls = 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counting)


def main() -> None:
    """Arguments: the run's directory, its configuration as JSON, where it shall die, and when."""
    out, options, where, step = sys.argv[1:]
    torch.set_num_threads(1)
    _summary._SECONDS = 0.0
    reporter = Silent()
    if where == "candidate":
        die_at_call(CrossEntropy, "__call__", int(step))
    elif where == "batch":
        die_at_call(AugmentedBatches, "_augment", int(step))
    elif where == "summary":
        die_at_call(Run, "finish", int(step))
    else:
        reporter = StopAt(where, int(step), signal.SIGKILL)
    prune_job(PruneOptions.of(json.loads(options)), Path(out), resume=True, reporter=reporter)


if __name__ == "__main__":
    main()
