"""Mixing of samples: training on what lies between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcprune.errors import InputError

_STREAM = 0x6D6978
"""Keeps the draws apart from others with the same seed and epoch, such as the data's."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What the samples of a batch are: ``targets`` at ``share``, ``others`` at 1 - ``share``."""

    targets: Tensor
    others: Tensor | None = None
    share: float = 1.0


class Mixup:
    """Mixes the batches of an epoch, each with itself in another order.

    ``concentration`` is the parameter a of the distribution Beta(a, a) that a batch's share is
    drawn from; 0 mixes nothing. What the i-th batch of epoch e of a seed becomes depends on seed,
    e, i and the batch's size alone. Source: Zhang et al., "mixup: beyond empirical risk
    minimization", ICLR 2018.
    """

    def __init__(self, concentration: float, seed: int, epoch: int) -> None:
        self._concentration = concentration
        self._generator = np.random.default_rng([_STREAM, seed, epoch])

    def __call__(
        self, inputs: Tensor, targets: Tensor, part: slice = slice(None)
    ) -> tuple[Tensor, Labels]:
        """Mix ``inputs`` (N, …) and name their ``targets`` (N, …); only ``part`` is yielded.

        ``InputError`` for inputs that are not floating-point numbers.
        """
        if self._concentration == 0:
            return inputs[part], Labels(targets[part])
        if not inputs.is_floating_point():
            raise InputError(
                f"training: mixup takes the mean of inputs, expected floats, got {inputs.dtype}"
            )
        share = float(self._generator.beta(self._concentration, self._concentration))
        order = torch.from_numpy(self._generator.permutation(len(inputs)))[part]
        mixed = torch.lerp(inputs[order.to(inputs.device)], inputs[part], share)
        return mixed, Labels(targets[part], targets[order.to(targets.device)], share)
