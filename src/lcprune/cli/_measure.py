"""What a network and a process take on this machine."""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import Tensor, nn

from lcprune.artifact import Latency

_WARM_UP = 3
_LEAST_RUNS = 10
_SECONDS = 0.5


def measure_latency(model: nn.Module, example_input: Tensor) -> Latency:
    """Milliseconds for one forward pass: the median over about half a second.

    In eval mode, with the tensors' own precision and PyTorch's present number of threads.
    """
    was_training = model.training
    model.eval()
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(_WARM_UP):
            model(example_input)
        _wait(example_input)
        began = time.perf_counter()
        while len(times) < _LEAST_RUNS or time.perf_counter() - began < _SECONDS:
            start = time.perf_counter()
            model(example_input)
            _wait(example_input)
            times.append(time.perf_counter() - start)
    model.train(was_training)
    return Latency(
        value=1000 * statistics.median(times),
        engine="pytorch",
        batch=int(example_input.shape[0]),
        threads=torch.get_num_threads(),
    )


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
