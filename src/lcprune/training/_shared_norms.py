"""BatchNorm over the samples of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lcprune.training._processes import Processes, SumOverProcesses


def shared_norms(processes: Processes, size: int) -> AbstractContextManager[object]:
    """Within, batch statistics are those of the global batch, on a CPU and on GPUs alike.

    ``size`` is the global batch's; processes run their parts of it.

    The call is replaced and not the layer: ``SyncBatchNorm`` does not run on a CPU, and putting
    it in a layer's place loses what a subclass adds (timm's activations).
    """
    return nullcontext() if processes.count == 1 else _SharedNorms(processes, size)


class _SharedNorms(TorchFunctionMode):
    def __init__(self, processes: Processes, size: int) -> None:
        super().__init__()
        self._processes = processes
        self._copies = processes.copies(size)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return functional.batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, var, count = self._moments(wide)
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                unbiased = var * (count / (count - 1).clamp_min(1))
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        shape = [1, -1] + [1] * (input.dim() - 2)
        scale = torch.rsqrt(var + eps)
        if weight is not None:
            scale = scale * weight
        output = (wide - mean.view(shape)) * scale.view(shape)
        if bias is not None:
            output = output + bias.view(shape)
        return output.to(input.dtype)

    def _moments(self, wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance (C,) over all processes, and the count of values, from one sum.

        Each process adds a row of its own, and variances are of what is centred: sums of squares
        would cancel.
        """
        dims = [0, *range(2, wide.dim())]
        mean = wide.mean(dims)
        centred = wide - mean.view([1, -1] + [1] * (wide.dim() - 2))
        values = mean.new_full((1,), wide.numel() / wide.shape[1] / self._copies)
        own = torch.cat([mean, centred.square().mean(dims), values])
        rank, others = self._processes.rank, self._processes.count - self._processes.rank - 1
        rows: Tensor = SumOverProcesses.apply(
            torch.cat([own.new_zeros(rank, len(own)), own[None], own.new_zeros(others, len(own))])
        )
        channels = len(mean)
        means, variances = rows[:, :channels], rows[:, channels : 2 * channels]
        counts = rows[:, -1:].detach()
        count = counts.sum()
        shares = counts / count
        overall = (shares * means).sum(0)
        var = (shares * (variances + (means - overall).square())).sum(0)
        return overall, var, count
