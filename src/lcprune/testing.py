"""Checks of a cut: for tests of one's own model, and of rules for one's own operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lcprune._checks import instance, integer, module
from lcprune.errors import VerificationError
from lcprune.graph import BoolArray, ChannelGraph
from lcprune.ranking import PlanBuilder
from lcprune.slimming import VISIBLE, difference, effect, slim
from lcprune.tracing import ExampleInput, as_examples, forward, private_copy, trace

__all__ = ["Checked", "check", "counted", "random_keep", "randomise"]


@dataclass(frozen=True)
class Checked:
    """What a check saw: the largest relative ``error`` of all plans, and the largest ``effect``.

    ``graph`` is the model's channel graph; ``training_checked`` tells whether training mode was
    compared with every plan, too.
    """

    graph: ChannelGraph
    error: float
    effect: float
    training_checked: bool


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Give every parameter and buffer random values, so that no fault can hide behind a zero.

    Residual scales often start at 0 and shifts at 0; here scales and variances lie in 0.5 to 1.5,
    and weights have the size that keeps activations near 1. The model itself is changed, put into
    eval mode, and returned.
    """
    module("model", model)
    generator = torch.Generator().manual_seed(integer("seed", seed))
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if not tensor.is_floating_point():
                continue
            if tensor.dim() > 1:
                fan_in = max(1, tensor[0].numel())
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5)
            else:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            # Shifts have both signs, or a deep network of rectifiers would go silent.
            if tensor.dim() == 1 and name.endswith(("bias", "running_mean")):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model.eval()


def random_keep(graph: ChannelGraph, rng: np.random.Generator) -> BoolArray:
    """A random mask over the prunable groups that leaves at least one of every family."""
    instance("graph", graph, ChannelGraph, "the ChannelGraph that lcprune.trace gives")
    instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    keep = np.ones(graph.prunable, dtype=np.bool_)
    for family in graph.families:
        groups = np.array(family.groups)
        keep[groups] = rng.random(len(groups)) < rng.uniform(0.2, 0.9)
        keep[rng.choice(groups)] = True
    return keep


def check(
    model: nn.Module,
    example_input: ExampleInput | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    training_inputs: ExampleInput | None = None,
    graph: ChannelGraph | None = None,
    seeds: Sequence[int] = (0, 1, 2),
) -> Checked:
    """Cut random plans out of a model and compare each with the masked original.

    The model is traced unless its ``graph`` is given. For every seed a random plan is drawn, cut,
    and verified as ``lcprune.verify`` does, in evaluation and in training mode; that the removal
    moves the outputs by more than 0.1 % in one plan at least is demanded too, since a comparison
    that sees nothing says nothing: give the model random values first (``randomise``).

    Raises ``VerificationError`` where a plan differs, nothing is prunable, or no plan has a
    visible effect, ``ModelError`` where the model can't run, and ``InputError`` where an argument
    is not what it should be.

    Example:
        check(randomise(MyNetwork(), seed=0), torch.randn(1, 3, 32, 32))
    """
    numbers = [integer("a seed", seed, least=0) for seed in instance("seeds", seeds, Sequence)]
    given: dict[str, Any] = {"example_kwargs": example_kwargs, "training_inputs": training_inputs}
    if graph is None:
        graph = trace(model, example_input, **given)
    instance("graph", graph, ChannelGraph, "the ChannelGraph that lcprune.trace gives")
    if not graph.prunable:
        raise VerificationError("nothing to check: none of the channels is prunable")
    builder = PlanBuilder(graph)
    error, moved, trained = 0.0, 0.0, True
    for number in numbers:
        plan = builder.plan(random_keep(graph, np.random.default_rng(number)))
        seen = difference(model, slim(model, plan), plan, example_input, **given)
        error, trained = max(error, seen.judged()), trained and seen.training_checked
        moved = max(moved, effect(model, plan, example_input, **given))
    if not moved > VISIBLE:
        raise VerificationError(
            f"the check is blind: removing channels moves the outputs by {moved:.2g} at most "
            f"(more than {VISIBLE:g} is expected); give the model random values first"
        )
    return Checked(graph, error, moved, trained)


def counted(model: nn.Module, example_input: ExampleInput) -> dict[str, int]:
    """PyTorch's own count: ``macs`` (half the FLOPs of its counter) and ``params``.

    A copy of the model runs, in eval mode. Attention runs as matrix products (fast path off,
    ``math`` backend), and so do recurrent layers (MKL-DNN off), since the counter does not know
    their fused forms. The formula of ``torchvision.ops.deform_conv2d``, which it has not, is
    that of a convolution.
    """
    inputs = as_examples(example_input)[0]
    # Without gradients: the counter wants one of every view of what has any.
    copied = private_copy(model).eval().requires_grad_(False)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    fused = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        counter = FlopCounterMode(display=False, custom_mapping=_further_formulas())
        with sdpa_kernel(SDPBackend.MATH), counter as flops:
            forward(copied, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(fused)
    return {
        "macs": flops.get_total_flops() // 2,
        "params": sum(parameter.numel() for parameter in model.parameters()),
    }


def _further_formulas() -> dict[Any, Any]:
    """What PyTorch's counter does not know: deformable convolutions, where there is torchvision."""
    operator = getattr(torch.ops.torchvision, "deform_conv2d", None)
    return {} if operator is None else {operator: _deformable_flops}


def _deformable_flops(source: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(2 * prod(weight) * out_shape[0] * prod(out_shape[2:]))
