"""Fitnesses for Ray workers, which import them by name."""

import os
from pathlib import Path

import torch
from torch import nn

from lcprune.errors import DataError

PROBE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Distance:
    """How far the outputs are from the original's."""

    def __init__(self, model: nn.Module) -> None:
        with torch.no_grad():
            self.target = model.eval()(PROBE)

    def __call__(self, small: nn.Module) -> float:
        with torch.no_grad():
            return float((small.eval()(PROBE) - self.target).square().mean())


class Deadly(Distance):
    """Ends its process at the ``at``-th evaluation of each, for the first ``times`` of them.

    ``folder`` counts the deaths across processes, and notes the threads of each.
    """

    def __init__(self, model: nn.Module, folder: Path, at: int, times: int) -> None:
        super().__init__(model)
        self.folder = folder
        self.left = at
        self.times = times

    def __call__(self, small: nn.Module) -> float:
        (self.folder / f"process-{os.getpid()}").write_text(str(torch.get_num_threads()))
        self.left -= 1
        if self.left == 0:
            for number in range(self.times):
                try:
                    (self.folder / f"death-{number}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                os._exit(7)
        return super().__call__(small)


class Broken(Distance):
    """Raises what the user is to see."""

    def __call__(self, small: nn.Module) -> float:
        raise DataError("expected labels 0 … 9")
