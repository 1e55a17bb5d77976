"""BatchNorm statistics of a network that lost channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from lcprune._checks import is_iterable, module, refused
from lcprune.errors import InputError
from lcprune.fitness._running import Batch, eval_mode, replicas, run_on, spread, worker_count
from lcprune.tracing import Inputs

HALF = (torch.bfloat16, torch.float16)


@dataclass
class _Estimate:
    """What a batch says of one layer; a layer that is used twice sees its samples twice."""

    mean: Tensor
    var: Tensor
    samples: int = 0
    uses: int = 0


def recalibrate(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Estimate the running mean and variance of every BatchNorm anew, in place, no gradients.

    Both become the average of the batches' own mean and (unbiased) variance, every batch weighed
    by its samples: a cumulative average that unequal batches don't bend. BatchNorm layers alone
    run in training mode, and keep statistics and scales in float32 whatever type the rest runs
    in. Layers that the batches don't reach keep their statistics, and all do where the model
    fails; modes and momenta are as they were afterwards. A model without BatchNorm is not run at
    all. On a CPU the batches are spread over threads, which does not change the result.

    A batch is the model's input, (N, …), a tuple of inputs, or ``Inputs``. ``InputError`` where
    there is none, or where it holds NaN or infinity that reaches the statistics; ``ModelError``
    where the model can't be run on it. Why pruning needs this: Li et al., "EagleEye", ECCV 2020.
    """
    module("model", model)
    if not is_iterable(batches):
        raise refused("batches", batches, "batches of the model's inputs, such as [images]")
    norms = _norms(model)
    if not norms:
        return
    held = list(batches)
    for number, batch in enumerate(held):
        tensors = _tensors(batch)
        if not tensors:
            raise refused(f"batch {number}", batch, "a model's input or a tuple of its inputs")
        if not any(tensor.numel() for tensor in tensors):
            raise InputError(f"batch {number} is empty, expected one sample or more")
    if not held:
        raise InputError("expected at least one batch to estimate BatchNorm statistics on")
    for norm in norms:
        if norm.running_mean is not None and norm.running_mean.dtype in HALF:
            norm.float()
    with eval_mode(model):
        workers = worker_count(model, len(held))
        estimates = spread(_estimate, replicas(model, workers), held, workers)
    # A network may overflow by itself; batches that hold no numbers are a mistake.
    found = [value for of in estimates for e in of for value in (e.mean, e.var)]
    if not _are_finite(found) and not _are_finite([x for batch in held for x in _tensors(batch)]):
        raise InputError("the batches hold NaN or infinity, expected finite inputs")
    for norm, of_batches in zip(norms, zip(*estimates, strict=True), strict=True):
        _store(norm, of_batches)


def _are_finite(values: Sequence[Tensor]) -> bool:
    """Read once, since on a GPU each reading waits for all that was begun."""
    flags = [value.isfinite().all() for value in values]
    return bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all())


def _tensors(batch: object) -> list[Tensor]:
    """All tensors in a batch, at any depth."""
    if isinstance(batch, Inputs):
        return batch.tensors()
    try:
        return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
    except RecursionError:
        raise InputError("a batch is a part of itself, expected tensors in it") from None


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def _estimate(model: nn.Module, batch: Batch) -> list[_Estimate]:
    with ExitStack() as stack, torch.no_grad():
        estimates = [stack.enter_context(_estimating(norm)) for norm in _norms(model)]
        run_on(model, batch)
    return estimates


@contextmanager
def _estimating(norm: _BatchNorm) -> Iterator[_Estimate]:
    """Within, ``norm`` averages over its uses into the estimate; after, it is as it was."""
    before = (norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    estimate = _Estimate(torch.zeros_like(norm.running_mean), torch.ones_like(norm.running_var))

    def weigh(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        estimate.uses += 1
        estimate.samples += len(inputs[0])
        norm.momentum = len(inputs[0]) / estimate.samples

    hook = norm.register_forward_pre_hook(weigh)
    norm.running_mean, norm.running_var = estimate.mean, estimate.var
    norm.num_batches_tracked = None
    norm.train()
    try:
        yield estimate
    finally:
        hook.remove()
        norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum = before
        norm.eval()


def _store(norm: _BatchNorm, estimates: tuple[_Estimate, ...]) -> None:
    samples = sum(estimate.samples for estimate in estimates)
    if samples == 0 or norm.running_mean is None or norm.running_var is None:
        return
    for own, values in (
        (norm.running_mean, [estimate.mean for estimate in estimates]),
        (norm.running_var, [estimate.var for estimate in estimates]),
    ):
        total = torch.zeros_like(own, dtype=torch.float64)
        for value, estimate in zip(values, estimates, strict=True):
            total += value.double() * (estimate.samples / samples)
        own.copy_(total)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.fill_(sum(estimate.uses for estimate in estimates))
