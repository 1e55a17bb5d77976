"""A search that takes milliseconds, and ways to end it early."""

import os
import signal
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from graphs import chain
from lcprune.cost import Budget
from lcprune.criteria import Saliency, saliency
from lcprune.ranking import Ranker
from lcprune.searching import Evolution, SearchProgress, SearchResult, Trial, search

MODEL, GRAPH = chain([24, 20, 28, 32])
SALIENCY = saliency(MODEL, GRAPH, "l2")
BUDGET = Budget(macs=0.5)
PROBE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Fitness:
    """How far the outputs are from the original's; in the first evaluation after trial
    ``stop`` it calls ``end``."""

    def __init__(self, stop: int | None = None, end: Callable[[], None] | None = None) -> None:
        self.calls = 0
        self.stop = stop
        self.end = end
        self.finished = 0
        with torch.no_grad():
            self.target = MODEL.eval()(PROBE)

    def on_trial(self, trial: Trial, progress: SearchProgress) -> None:
        self.finished = progress.done

    def __call__(self, small: nn.Module) -> float:
        if self.end is not None and self.stop is not None and self.finished >= self.stop:
            self.end()
        self.calls += 1
        with torch.no_grad():
            return float((small.eval()(PROBE) - self.target).square().mean())


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


TRIALS = 40


def evolution(ranker: Ranker, trials: int, seed: int) -> Evolution:
    """With children after a few trials."""
    return Evolution(ranker, trials, seed, population=12, tournament=4, share=0.3)


def run(scores: Saliency = SALIENCY, budget: Budget = BUDGET, **options: Any) -> SearchResult:
    options = {"fitness": Fitness(), "trials": TRIALS, "strategy": evolution, **options}
    return search(MODEL, GRAPH, scores, budget, **options)


@cache
def unbroken(compensation: str = "additive") -> SearchResult:
    """The run that every interrupted or resumed one must equal."""
    return run(compensation=compensation)
