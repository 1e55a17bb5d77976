"""Regressions of a layer's missing output on what the layer reads, from sums over positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from lcprune.fitness._watch import Convolution

RIDGES = (1e-13, 1e-10, 1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""What may be added to the diagonal, as a share of it."""

FIRST = 6
"""Which of them is tried first."""


class Moments:
    """Sums over rows (positions of images) in float64, for each of the layer's G groups.

    A row has the D numbers that a group reads, what its O outputs miss, and what they are to be.
    """

    def __init__(self, groups: int, reads: int, outputs: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64, device=device)

        self.rows, self.reads = 0, reads
        self.x, self.r = zeros(reads), zeros(outputs)
        self.xx, self.xr, self.rr = zeros(reads, reads), zeros(reads, outputs), zeros(outputs)
        self.t, self.tt = zeros(outputs), zeros(outputs)

    def add(self, x: Tensor, missing: Tensor, target: Tensor) -> None:
        """Rows: what is read [G, N, D], what is missing and what is to be [G, N, O]."""
        x, missing, target = x.double(), missing.double(), target.double()
        self.rows += x.shape[1]
        self.x += x.sum(1)
        self.r += missing.sum(1)
        self.rr += missing.square().sum(1)
        self.t += target.sum(1)
        self.tt += target.square().sum(1)
        turned = x.transpose(1, 2)
        self.xx += turned @ x
        self.xr += turned @ missing

    @property
    def spread(self) -> Tensor:
        """The sum of squares of the targets about their mean, [G, O]."""
        return (self.tt - self.t.square() / max(self.rows, 1)).clamp_min(0)

    def solved(self, ridge: float, *, intercept: bool) -> Change | None:
        """The change of weights that leaves least missing, or none where it can't be told.

        The ridge holds the weights near those that they are: it is a share of the diagonal, so
        that the scale of a channel has no say.
        """
        xx, xr = self.xx, self.xr
        if intercept:
            xx = xx - self.x[:, :, None] * self.x[:, None, :] / self.rows
            xr = xr - self.x[:, :, None] * self.r[:, None, :] / self.rows
        diagonal = torch.diagonal(xx, dim1=1, dim2=2)
        least = diagonal.amax(1, keepdim=True) * 1e-12
        scale = diagonal.clamp_min(torch.finfo(torch.float64).tiny).maximum(least).sqrt()
        scaled = xx / scale[:, :, None] / scale[:, None, :]
        scaled.diagonal(dim1=1, dim2=2).add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(scaled)
        if bool(failed.any()):
            return None
        weight = torch.cholesky_solve(xr / scale[:, :, None], factor) / scale[:, :, None]
        bias = torch.zeros_like(self.r)
        if intercept:
            bias = (self.r - torch.einsum("gdo,gd->go", weight, self.x)) / self.rows
        return Change(weight, bias)

    def left(self, change: Change | None) -> Tensor:
        """The sum of squares of what is still missing after a change, [G, O]."""
        if change is None:
            return self.rr
        weight, bias = change.weight, change.bias
        read = torch.einsum("gdo,gd->go", weight, self.x)
        squares = (weight * (self.xx @ weight - 2 * self.xr)).sum(1)
        constant = bias * (2 * read - 2 * self.r + self.rows * bias)
        return (self.rr + squares + constant).clamp_min(0)


def least(
    fit: Moments, error: Callable[[Change], float], *, intercept: bool
) -> tuple[float, float, Change] | None:
    """The least error that a change fitted with one of the ridges has, that ridge, and the change.

    The error falls and rises with the ridge: from ``FIRST`` they are tried downwards as long as it
    falls, else upwards. None where no change can be told.
    """
    best: tuple[float, float, Change] | None = None
    for positions in (range(FIRST, -1, -1), range(FIRST + 1, len(RIDGES))):
        if best is not None and best[1] < RIDGES[FIRST]:
            break
        for position in positions:
            change = fit.solved(RIDGES[position], intercept=intercept)
            after = float("inf") if change is None else error(change)
            if change is None or not after < (float("inf") if best is None else best[0]):
                break
            best = after, RIDGES[position], change
    return best


@dataclass(frozen=True)
class Change:
    """What is added to weights [G, D, O] and to the outputs [G, O]."""

    weight: Tensor
    bias: Tensor


def ungrouped(weight: Tensor, shape: torch.Size) -> Tensor:
    """Weights [G, D, O] in the shape of the layer's."""
    return weight.transpose(1, 2).reshape(shape)


class Rows:
    """Positions of a layer's output, and the rows that they make."""

    def __init__(
        self,
        settings: Convolution | None,
        kernel: tuple[int, ...],
        output: torch.Size,
        wanted: int,
        generator: torch.Generator,
    ) -> None:
        """``wanted`` rows of an output of that shape, or all; drawn without repetition."""
        self._settings, self._kernel = settings, kernel
        if settings is None:
            count, samples = prod(output[:-1]), 1
        else:
            count, samples = prod(output[2:]), output[0]
        wanted = max(1, -(-wanted // max(samples, 1)))
        if wanted < count:
            self.chosen = torch.randperm(count, generator=generator)[:wanted].sort().values
        else:
            self.chosen = torch.arange(count)
        self._size = tuple(output[2:])

    def of_input(self, x: Tensor) -> Tensor:
        """What the layer reads for the chosen positions: [G, N, D]."""
        settings, chosen = self._settings, self.chosen.to(x.device)
        if settings is None:
            return x.reshape(-1, x.shape[-1])[chosen][None]
        pads = [width for width in reversed(settings.padding) for _ in range(2)]
        padded = functional.pad(x, pads) if any(pads) else x
        index = torch.zeros(len(chosen), 1, dtype=torch.int64, device=x.device)
        places = torch.unravel_index(chosen, self._size)
        for axis, (size, place) in enumerate(zip(padded.shape[2:], places, strict=True)):
            offsets = torch.arange(self._kernel[axis], device=x.device) * settings.dilation[axis]
            along = place[:, None] * settings.stride[axis] + offsets
            index = (index[:, :, None] * size + along[:, None, :]).flatten(1)
        read = padded.flatten(2)[:, :, index]
        return _by_group(read.flatten(3), settings.groups)

    def of_output(self, y: Tensor) -> Tensor:
        """What is to be there at the chosen positions: [G, N, O]."""
        settings, chosen = self._settings, self.chosen.to(y.device)
        if settings is None:
            return y.reshape(-1, y.shape[-1])[chosen][None]
        return _by_group(y.flatten(2)[:, :, chosen, None], settings.groups)


def _by_group(values: Tensor, groups: int) -> Tensor:
    """[N, C, P, K] as [G, N·P, C/G·K]."""
    samples, channels, positions, kernel = values.shape
    split = values.reshape(samples, groups, channels // groups, positions, kernel)
    return split.permute(1, 0, 3, 2, 4).reshape(groups, samples * positions, -1)
