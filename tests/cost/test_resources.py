"""Every resource against a count that shares no code with it, on networks that are slimmed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import known
import strange
import strange_channels
from cost.replay import really_alive, replayed
from graphs import graphs
from lcprune.cost import RESOURCES, Budget, CostModel
from lcprune.criteria import saliency
from lcprune.errors import BudgetError
from lcprune.graph import BoolArray, ChannelGraph, IntArray
from lcprune.models import build, cifar_resnet
from lcprune.ranking import rank
from lcprune.slimming import slim
from lcprune.tracing import trace
from networks import random_network
from oracle import at_least_two, plan_of, random_keep


class Dense(nn.Module):
    """Two dense layers and a transition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(inplace=True), nn.Conv2d(n, 4, 3, padding=1))
            for n in (6, 10, 14)
        )
        self.transition = nn.Sequential(nn.Conv2d(18, 8, 1), nn.AvgPool2d(2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(self.transition(x).mean((2, 3)))


class UNet(nn.Module):
    """Two resolutions with a skip that lives long."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.SiLU())
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.out = nn.Conv2d(14, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = functional.gelu(self.down(x))
        deep = self.deep(functional.max_pool2d(skip, 2))
        return self.out(torch.cat([self.up(deep), skip], 1))


def mobilenet() -> nn.Module:
    return pytest.importorskip("torchvision").models.mobilenet_v2(width_mult=0.25)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cifar_resnet20": lambda: build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)),
    "mobilenet_v2": mobilenet,
    "dense": Dense,
    "u-net": UNet,
    "a group a channel": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(8, 8), nn.Conv2d(8, 2, 3)
    ),
    "gates": strange.CrossGates,
    "attention": strange_channels.PlainAttention,
    "attention of a module": strange_channels.ModuleAttention,
    "shuffled": strange_channels.ShuffledDense,
    "views written": strange.WritesThroughViews,
    "norms in place": strange.NormalisesInPlace,
    "activations in place": lambda: nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), activation)
            for activation in (
                nn.ReLU6(inplace=True),
                nn.Mish(inplace=True),
                nn.Threshold(0.1, 0.0, inplace=True),
                nn.ELU(inplace=True),
                nn.Hardswish(inplace=True),
            )
        ),
        nn.Flatten(),
        nn.Linear(3 * 16 * 16, 2),
    ),
    "several outputs": strange.NestedOutput,
    "pixels": strange_channels.PixelsThereAndBack,
}


def agree(model: nn.Module, example: Tensor, seed: int, fused: bool = False) -> None:
    model.eval()
    graph = trace(model, example)
    cost = CostModel(graph, ["activations", "weights"])
    keep = random_keep(graph, np.random.default_rng(seed))
    # Where one channel is left, some copies are needless and are not made.
    keep = at_least_two(graph, keep)
    small = slim(model, plan_of(graph, keep))
    for network, predicted in ((model, cost.evaluate()), (small, cost.evaluate(keep))):
        peak, kinds = replayed(network, example)
        assert predicted["activations"] == peak
        if fused:  # what tracing takes apart by itself has two steps of other names
            assert {op.kind for op in graph.ops} - set(kinds) <= {"reshape", "to"}
        else:
            assert kinds == [op.kind for op in graph.ops]
        assert predicted["weights"] == stored(network)
        assert really_alive(network, example) >= predicted["activations"]
    assert keep.all() or cost.evaluate(keep)["weights"] < cost.evaluate()["weights"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*known.DEFAULT, *known.OTHERS])
def test_activations_and_weights_of_known_networks_are_exact(name: str) -> None:
    model, example, _ = known.traced(name)
    agree(model, example, 2)


def stored(model: nn.Module) -> int:
    distinct = {id(t): t for t in model.state_dict(keep_vars=True).values()}
    return sum(t.numel() * t.element_size() for t in distinct.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_activations_and_weights_of_slimmed_networks_are_exact(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        agree(NETWORKS[name](), torch.randn(1, 3, 16, 16), 1, fused="of a module" in name)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6))
def test_activations_and_weights_of_random_networks_are_exact(seed: int) -> None:
    agree(*random_network(seed), seed)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=12)
def test_every_value_of_the_slimmed_network_has_the_shape_that_the_graph_says(seed: int) -> None:
    model, example = random_network(seed)
    graph = trace(model, example)
    keep = at_least_two(graph, random_keep(graph, np.random.default_rng(seed)))
    small = trace(slim(model, plan_of(graph, keep)), example)
    alive = np.concatenate([keep, np.ones(len(graph.pinned_reasons) + 1, dtype=bool)])
    sizes = [int(alive[vector].sum()) for vector in graph.vectors]
    assert [op.kind for op in graph.ops] == [op.kind for op in small.ops]
    for old, new in zip(graph.values, small.values, strict=True):
        expected = tuple(a.size if a.vector is None else sizes[a.vector] for a in old.axes)
        assert (expected, old.storage, old.kind) == (new.shape, new.storage, new.kind)


def test_a_resnet14_has_the_peak_that_is_computed_by_hand() -> None:
    model = cifar_resnet(14).eval()
    graph = trace(model, torch.randn(1, 3, 32, 32))
    cost = CostModel(graph, ["activations"])
    # Input, output and the sum of the shortcut: three maps of 16 x 32 x 32 float32.
    assert cost.evaluate() == {"activations": 3 * 16 * 32 * 32 * 4}
    keep = np.zeros(graph.prunable, dtype=bool)
    for family in graph.families:
        width = max(graph.dimension(*key).channels.size for key in family.dimensions)
        keep[list(family.groups[: round(len(family.groups) * 11 / 16)])] = True
        assert width in (16, 32, 64)
    small = slim(model, plan_of(graph, keep))
    assert small.conv1.out_channels == 11
    assert cost.evaluate(keep) == {"activations": 3 * 11 * 32 * 32 * 4}


def test_views_and_in_place_results_share_a_storage_and_dead_results_count_once() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.add_(1).relu_()
            y = x.view(-1)
            z = y * 2
            z.unsqueeze(0).mul_(3)
            return z

    graph = trace(Net(), torch.randn(1, 10))
    assert CostModel(graph, ["activations"]).evaluate() == {"activations": 80}
    assert len({graph.values[n].storage for op in graph.ops for n in op.writes}) == 2


def test_an_input_lives_to_its_last_reader_and_an_output_to_the_end() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            early = x + 1  # 40 + 40
            late = (x * 2).sum()  # 40 + 40 + 40, then 40 + 40 + 4
            return early, late

    graph = trace(Net(), torch.randn(1, 10))
    assert CostModel(graph, ["activations"]).evaluate() == {"activations": 120}


def test_an_input_lives_from_the_start() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(100))

        def forward(self, x: Tensor) -> Tensor:
            return x + (self.weight * 2).sum()

    graph = trace(Net(), torch.randn(1, 10))
    assert CostModel(graph, ["activations"]).evaluate() == {"activations": 40 + 400 + 4}


def test_weights_are_what_the_state_dict_holds() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.again = self.conv
            self.register_buffer("scratch", torch.zeros(1000), persistent=False)
            self.register_buffer("table", torch.zeros(10, dtype=torch.float16))

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x))

    graph = trace(Net().eval(), torch.randn(1, 3, 8, 8))
    # Counters of batches are int64.
    expected = 4 * (4 * 3 * 9 + 4) + 4 * 4 * 4 + 8 + 2 * 10
    assert CostModel(graph, ["weights"]).evaluate() == {"weights": expected}


@given(graphs(), st.data())
def test_no_cost_falls_where_a_group_returns(graph: ChannelGraph, data: st.DataObject) -> None:
    check_monotone(graph, data.draw(st.integers(0, 10**6)))


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_no_cost_of_a_network_falls_where_a_group_returns(seed: int) -> None:
    check_monotone(trace(*random_network(seed)), seed)


def check_monotone(graph: ChannelGraph, seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = [name for name in RESOURCES if name != "latency"]  # which needs a table
    cost = CostModel(graph, every)
    large = rng.random(graph.prunable) < 0.8
    small = large & (rng.random(graph.prunable) < 0.8)
    before, after = cost.evaluate(large), cost.evaluate(small)
    assert all(after[name] <= before[name] for name in every)
    kept = np.stack(
        [np.bincount(cost.signatures[m], minlength=len(cost.populations)) for m in (large, small)],
        axis=1,
    )
    assert cost.of_counts(kept).T.tolist() == [list(before.values()), list(after.values())]


def test_two_bounds_hold_together_and_nothing_more_fits() -> None:
    model = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval()
    example = torch.randn(1, 3, 32, 32)
    graph = trace(model, example)
    budget = Budget(macs="50%", activations="60%")
    plan = rank(graph, saliency(model, graph, "l2"), budget)
    cost = CostModel(graph, ["macs", "params", "activations"])
    limits = budget.limits(cost.evaluate())
    assert all(plan.cost[name] <= limit for name, limit in limits.items())
    assert plan.cost["activations"] == replayed(slim(model, plan), example)[0]
    assert plan.cost["macs"] > 0.4 * cost.evaluate()["macs"]
    keep = kept_groups(graph, plan.kept)
    assert cost.evaluate(keep) == plan.cost
    for group in np.flatnonzero(~keep):
        more = keep.copy()
        more[group] = True
        now = cost.evaluate(more)
        assert any(now[name] > limit for name, limit in limits.items())


def kept_groups(graph: ChannelGraph, kept: dict[tuple[str, int], tuple[int, ...]]) -> BoolArray:
    keep = np.ones(graph.prunable, dtype=bool)
    for dimension in graph.dimensions:
        if dimension.key in kept:
            gone = np.setdiff1d(np.arange(len(dimension.channels)), kept[dimension.key])
            keep[dimension.channels[gone]] = False
    return keep


def test_a_resource_of_ones_own_is_bound_beside_the_others() -> None:
    class Widest:
        """The largest number of kept channels: no sum of products."""

        name, unit = "widest", "channels"

        def bind(self, graph: ChannelGraph) -> Widest:
            self.vectors = tuple(range(len(graph.vectors)))
            return self

        def __call__(self, sizes: IntArray) -> IntArray:
            return sizes.max(axis=0)

    graph = trace(*random_network(3))
    rng = np.random.default_rng(0)
    keep = random_keep(graph, rng)
    cost = CostModel(graph, ["macs", Widest(), "activations"])
    alive = np.concatenate([keep, np.ones(len(graph.pinned_reasons) + 1, dtype=bool)])
    expected = CostModel(graph, ["macs", "activations"]).evaluate(keep)
    expected["widest"] = max(int(alive[vector].sum()) for vector in graph.vectors)
    assert cost.evaluate(keep) == expected
    assert cost.resources == ("macs", "widest", "activations")
    assert cost.units == {"macs": "MACs", "widest": "channels", "activations": "B"}


def test_an_unknown_resource_is_refused_with_those_that_there_are() -> None:
    graph = trace(*random_network(3))
    for wrong in (lambda: CostModel(graph, ["flops"]), lambda: Budget(flops=0.5)):
        with pytest.raises(BudgetError, match=r"'flops'.*macs, params, weights, activations"):
            wrong()


def test_equally_fast_operators_have_one_key() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, 3, stride=2, padding=1),
    )  # fmt: skip
    graph = trace(model.eval(), torch.randn(1, 3, 8, 8))
    keys = [op.key(graph.values) for op in graph.ops]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 4
    assert "1x3x8x8:4" in keys[0]
    assert "stride=(2, 2)" in keys[4]
