"""The process at the other end of a Ray executor."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from typing import Any

import torch

from lcprune.searching._evaluate import Evaluator
from lcprune.searching._executor import Evaluation, Job, Work, evaluate

FACTORY_MODULES = "_lcprune_factory_"
"""How the modules are called that were made from a file, which other processes can't import."""


class Worker:
    """Holds the network and its fitness, and evaluates one plan at a time.

    ``work`` is ``packed`` (uint8, straight from the object store), ``path`` is where the modules
    of the caller are, as far as this machine has them.
    """

    def __init__(self, work: Any, threads: int, path: Sequence[str]) -> None:
        torch.set_num_threads(threads)
        sys.path.extend(folder for folder in path if folder not in sys.path)
        self._work = work
        self._evaluator: Evaluator | None = None

    def load(self) -> Evaluator:
        """Unpack the work, once; apart from ``__init__`` so that an error keeps its type."""
        if self._evaluator is None:
            work: Work = pickle.loads(memoryview(self._work))
            self._evaluator = work.evaluator()
            self._work = None
        return self._evaluator

    def ready(self) -> bool:
        self.load()
        return True

    def evaluate(self, job: Job) -> Evaluation:
        return evaluate(self.load(), job)


def packed(work: Work, cloudpickle: Any) -> bytes:
    """All that a worker needs, as bytes.

    What lives in a script or in a file named on the command line travels by value.
    """
    made = [sys.modules[name] for name in sys.modules if name.startswith(FACTORY_MODULES)]
    for module in made:
        cloudpickle.register_pickle_by_value(module)
    try:
        content: bytes = cloudpickle.dumps(work)
    finally:
        for module in made:
            cloudpickle.unregister_pickle_by_value(module)
    return content
