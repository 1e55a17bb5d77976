"""BatchNorm statistics of a network that lost channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lcprune.errors import InputError
from lcprune.fitness._modes import eval_mode

HALF = (torch.bfloat16, torch.float16)


def recalibrate(model: nn.Module, batches: Iterable[Tensor | tuple[Tensor, ...]]) -> None:
    """Estimate the running mean and variance of every BatchNorm anew, in place, no gradients.

    Both become the average of the batches' own mean and (unbiased) variance, every batch weighed
    by its samples: a cumulative average that unequal batches don't bend. BatchNorm layers alone
    run in training mode, and keep statistics and scales in float32 whatever type the rest runs
    in. Layers that the batches don't reach keep their statistics; modes and momenta are as they
    were afterwards. A model without BatchNorm is not run at all.

    A batch is the model's input, (N, …), or a tuple of inputs. ``InputError`` where there is
    none. Why pruning needs this: Li et al., "EagleEye", ECCV 2020.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not norms:
        return
    with eval_mode(model), ExitStack() as stack, torch.no_grad():
        for norm in norms:
            stack.enter_context(_estimating(norm))
        count = 0
        for batch in batches:
            model(*batch) if isinstance(batch, tuple) else model(batch)
            count += 1
    if count == 0:
        raise InputError("expected at least one batch to estimate BatchNorm statistics on")


@contextmanager
def _estimating(norm: _BatchNorm) -> Iterator[None]:
    mean, var, tracked = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if mean is None or var is None or tracked is None:
        raise AssertionError("a layer without running statistics")
    if mean.dtype in HALF:
        norm.float()
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None
        assert var is not None
    before = (mean.clone(), var.clone(), tracked.clone())
    momentum = norm.momentum
    seen = 0

    def weigh(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal seen
        seen += len(inputs[0])
        norm.momentum = len(inputs[0]) / seen

    hook = norm.register_forward_pre_hook(weigh)
    norm.reset_running_stats()
    norm.train()
    try:
        yield
    finally:
        hook.remove()
        norm.momentum = momentum
        if seen == 0:
            for statistic, value in zip((mean, var, tracked), before, strict=True):
                statistic.copy_(value)
