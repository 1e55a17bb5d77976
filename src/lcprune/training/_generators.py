"""PyTorch's global generators, for what has no generator of its own (dropout)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def seeded_generators(seed: int, device: torch.device, rank: int = 0) -> Iterator[None]:
    """Seed the global generators within, each process with its own, and leave them as before."""
    if rank > 0:
        state = np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)
        seed = int(state[0] >> np.uint64(1))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def generator_states(device: torch.device) -> tuple[Tensor, ...]:
    """States of the CPU's generator and, on a GPU, of the device's."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(states)


def restore_generators(states: Sequence[Tensor], device: torch.device) -> None:
    """Undo to ``generator_states``."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
