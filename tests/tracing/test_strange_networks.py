"""Networks that nobody tuned for: exact after random plans, or left alone with a reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import strange
import strange_channels
from lcprune.cost import CostModel
from lcprune.errors import VerificationError
from lcprune.graph import ChannelGraph
from lcprune.slimming import slim, verify
from lcprune.testing import counted
from lcprune.tracing import trace
from oracle import check, plan_of, random_keep, randomise

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SEEDS = range(4)


@dataclass(frozen=True)
class Odd:
    """A network, filters that must be prunable, and filters that must stay with a reason."""

    network: type[nn.Module]
    prunable: tuple[str, ...]
    stay: tuple[tuple[str, str], ...] = ()

    def built(self) -> nn.Module:
        return randomise(self.network(), 1)


ODD = (
    Odd(
        strange.CrossGates,
        ("left.0", "right.0", "left_by_right.layers.0", "right_by_left.layers.0", "deeper_left.0"),
    ),
    Odd(
        strange.UnevenSlices,
        ("small.0", "large.0", "mix.0"),
        stay=(("stem.0", "fixed in code"),),
    ),
    Odd(strange.SharedConvolution, ("fine.0", "coarse.1.0", "shared")),
    Odd(
        strange.NestedOutput,
        ("stem.0", "trunk.0"),
        stay=(
            ("boxes", "output dense.0.boxes of the model"),
            ("scores", "output scores.logits.raw of the model"),
            ("masks", "output dense.1.0 of the model"),
        ),
    ),
    Odd(
        strange.DetachedAuxiliary,
        ("stem.0", "trunk.0", "auxiliary.0.0"),
        stay=(("auxiliary.2", "output 1 of the model"),),
    ),
    Odd(strange_channels.NeighbourGate, ("stem.0",), stay=(("trunk.0", "in across"),)),
    Odd(strange.GeneratedWeights, ("stem.0", "after.0", "kernels")),
    Odd(
        strange.GeneratedWeightsOfFixedSize,
        ("after.0",),
    ),
    Odd(strange.WeighedExperts, ("stem.0",)),
    Odd(
        strange.WritesThroughViews,
        ("stem.0", "trunk.0"),
        stay=(("even.0", "fixed size"), ("odd.0", "fixed size")),
    ),
    Odd(strange.TwoResolutions, ("stem", "inner", "outer")),
    Odd(
        strange_channels.ShuffledDense,
        ("stem.0", "grow.0.0", "gates.0.layers.0"),
    ),
    Odd(strange_channels.SelectiveKernels, ("stem.0", "branches.0.0", "squeeze", "selects.2")),
    Odd(strange.UpdatesItsBuffer, ("stem.0", "trunk.0")),
    Odd(
        strange_channels.EinsumMix,
        ("stem.0",),
    ),
    Odd(strange_channels.ChannelSoftmax, ("stem.0",)),
    Odd(
        strange_channels.CountsItsChannels,
        ("stem.0",),
    ),
    Odd(
        strange_channels.PlainAttention,
        ("stem.0",),
    ),
    Odd(
        strange_channels.ModuleAttention,
        ("stem.0",),
    ),
    Odd(
        strange_channels.RootMeanSquares,
        ("stem.0",),
    ),
    Odd(strange.NormalisesInPlace, ("stem.0",)),
    Odd(
        strange_channels.ScaledByItsWidth,
        ("trunk.0",),
        stay=(("stem.0", "computed from their number"),),
    ),
    Odd(
        strange_channels.PixelsThereAndBack,
        ("stem.0", "trunk.0"),
    ),
    Odd(
        strange.Reparametrised,
        ("stem.0", "wide", "narrow"),
    ),
    Odd(strange.LeavesPyTorch, ("stem.0", "after.0"), stay=(("trunk.0", "leave PyTorch"),)),
)


CASES = [pytest.param(odd, id=odd.network.__name__) for odd in ODD]


def prunable_filters(graph: ChannelGraph, tensor: str) -> int:
    channels = graph.dimension(tensor, 0).channels
    return int(((channels >= 0) & (channels < graph.prunable)).sum())


@pytest.mark.parametrize("odd", CASES)
def test_the_slimmed_network_is_the_masked_one_and_costs_what_the_graph_says(odd: Odd) -> None:
    model = odd.built()
    graph = trace(model, IMAGES)
    assert graph.prunable > 0
    cost = CostModel(graph)
    for seed in SEEDS:
        seen = check(model, IMAGES, seed, graph)
        assert seen.error <= 1e-9
        assert seen.effect > 1e-3
        keep = random_keep(graph, np.random.default_rng(seed))
        small = slim(model, plan_of(graph, keep))
        assert cost.evaluate(keep) == counted(small, IMAGES[:1].clone())


@pytest.mark.parametrize("odd", CASES)
def test_every_filter_is_prunable_or_stays_with_a_reason(odd: Odd) -> None:
    model = odd.built()
    graph = trace(model, IMAGES)
    for layer in odd.prunable:
        assert prunable_filters(graph, f"{layer}.weight") > 0, layer
    for layer, reason in odd.stay:
        told = [u.reason for u in graph.untouched if u.tensor == f"{layer}.weight"]
        assert any(reason in one for one in told), told
    for tensor, dim in graph.producers:
        if dim == 0:
            named = [u for u in graph.untouched if (u.tensor, u.dim) == (tensor, dim)]
            size = len(graph.dimension(tensor, 0).channels)
            assert prunable_filters(graph, tensor) + sum(u.count for u in named) == size
            assert all(u.reason for u in named)
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert {f"{name}.weight" for name, _ in layers} <= {tensor for tensor, _ in graph.producers}


def test_a_cut_with_its_filters_in_another_order_is_noticed() -> None:
    """The comparison of this file can fail: a wrong cut of the oddest coupling is seen."""
    model = randomise(strange.TwoResolutions(), 1)
    graph = trace(model, IMAGES)
    keep = np.ones(graph.prunable, dtype=bool)
    keep[0] = False
    plan = plan_of(graph, keep)
    small = slim(model, plan)
    with torch.no_grad():
        small.outer.weight.copy_(small.outer.weight.flip(0))
    with pytest.raises(VerificationError, match="differs from the masked original"):
        verify(model, small, plan, IMAGES)


def test_the_example_input_and_the_buffers_stay_as_they_were() -> None:
    for network in (strange.NormalisesInPlace, strange.UpdatesItsBuffer):
        model = randomise(network(), 1).double()
        example = IMAGES.double()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        graph = trace(model, example)
        plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
        assert verify(model, slim(model, plan), plan, example) <= 1e-9
        assert torch.equal(example, IMAGES.double())
        assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())


def test_a_tensor_inside_any_object_of_the_output_is_an_output() -> None:
    class Found:
        def __init__(self, features: Tensor) -> None:
            self.features = features

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.b = nn.Conv2d(4, 5, 1)
            self.c = nn.Conv2d(5, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Found]:
            y = self.b(self.a(x))
            return self.c(y), Found(y)

    graph = trace(Answers(), IMAGES)
    assert graph.prunable == 4
    assert ("b.weight", "output 1.features of the model") in {
        (u.tensor, u.reason) for u in graph.untouched
    }


def test_a_head_that_sees_no_row_is_an_output_all_the_same() -> None:
    """As the heads of a detector that finds nothing in its example input."""

    class Finds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.head = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.stem(x).permute(0, 2, 3, 1).flatten(0, 2)
            return self.head(rows[rows.mean(1) > 1e9])

    graph = trace(Finds(), IMAGES)
    assert ("head.weight", 5) in {(u.tensor, u.count) for u in graph.untouched}
