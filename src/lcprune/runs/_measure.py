"""What a network and a process take on this machine."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from lcprune.artifact import Latency
from lcprune.fitness import eval_mode

_WARM_UP = 3
_LEAST_RUNS = 10
_SECONDS = 0.5


def measure_latencies(models: Sequence[nn.Module], example_input: Tensor) -> list[Latency]:
    """Milliseconds of one forward pass of each model: the median over about half a second each.

    The models take turns, so that what else the machine does falls on all of them. In eval mode,
    with the tensors' own precision and PyTorch's present number of threads.
    """
    times: list[list[float]] = [[] for _ in models]
    with ExitStack() as stack, torch.inference_mode():
        for model in models:
            stack.enter_context(eval_mode(model))
            for _ in range(_WARM_UP):
                model(example_input)
        _wait(example_input)
        began = time.perf_counter()
        while len(times[0]) < _LEAST_RUNS or time.perf_counter() - began < _SECONDS * len(models):
            for model, own in zip(models, times, strict=True):
                start = time.perf_counter()
                model(example_input)
                _wait(example_input)
                own.append(time.perf_counter() - start)
    return [
        Latency(
            value=1000 * statistics.median(own),
            engine="pytorch",
            batch=int(example_input.shape[0]),
            threads=torch.get_num_threads(),
        )
        for own in times
    ]


def _wait(example_input: Tensor) -> None:
    if example_input.is_cuda:
        torch.cuda.synchronize(example_input.device)


def peak_rss_mb() -> float | None:
    """The largest resident set of this process so far in MiB; none where the system can't say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (1024**2 if sys.platform == "darwin" else 1024)
