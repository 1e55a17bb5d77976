"""What tracing finds in networks whose channels are known."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from lcprune.errors import ModelError
from lcprune.graph import ChannelGraph
from lcprune.models import build
from lcprune.tracing import trace
from networks import Functional, Gate, PlainPadResidual, Residual, Reused
from oracle import check, randomise

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def coupled(graph: ChannelGraph) -> set[frozenset[tuple[str, int]]]:
    """The tensor dimensions of every family."""
    return {frozenset(family.dimensions) for family in graph.families}


def test_families_of_a_cifar_resnet56() -> None:
    graph = trace(
        build("cifar_resnet56", classes=10, input_shape=(3, 32, 32)), torch.randn(1, 3, 32, 32)
    )
    internal = [f for f in graph.families if len(f.dimensions) == 6]
    residual = [f for f in graph.families if len(f.dimensions) > 6]
    assert len(internal) == 27
    assert [len(f.groups) for f in residual] == [16, 16, 32]
    stages = [
        {stage for stage in "123" if any(f"layer{stage}." in t for t, _ in family.dimensions)}
        for family in residual
    ]
    assert stages == [{"1", "2", "3"}, {"2", "3"}, {"3"}]
    assert graph.prunable == 9 * (16 + 32 + 64) + 64
    assert [u.tensor for u in graph.untouched] == ["linear.weight"]


def test_zero_padded_shortcuts_tie_the_middle_and_leave_the_ends_free() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Residual(nn.Conv2d(4, 7, 3, padding=1), 1, 2), nn.Conv2d(7, 2, 1)
    )
    graph = trace(model, IMAGE)
    body = graph.dimension("1.body.weight", 0).channels
    first = graph.dimension("0.weight", 0).channels
    assert body[1:5].tolist() == first.tolist()
    assert len(set(body.tolist())) == 7
    assert {(a.module, a.name) for a in graph.attributes} >= {
        ("1.pad", "before"),
        ("1.pad", "after"),
    }


def test_padding_that_is_fixed_in_code_keeps_its_channels_with_the_reason() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), PlainPadResidual(nn.Conv2d(4, 8, 3, padding=1), 2), nn.Conv2d(8, 2, 1)
    )
    graph = trace(model, IMAGE)
    (untouched,) = [u for u in graph.untouched if u.tensor == "1.body.weight"]
    assert (untouched.count, untouched.size) == (4, 8)
    assert "fixed in code at aten.constant_pad_nd in 1: lcprune.ChannelPad" in untouched.reason
    assert graph.prunable == 4


def test_a_gate_of_one_channel_is_not_coupled() -> None:
    class Broadcast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Conv2d(3, 32, 1)
            self.narrow = nn.Conv2d(3, 1, 1)
            self.out = nn.Conv2d(32, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.wide(x) * torch.sigmoid(self.narrow(x)))

    graph = trace(Broadcast(), IMAGE)
    assert graph.prunable == 32


def test_squeeze_and_excite_couples_the_gate_with_what_it_gates() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Gate(8, 4, linear=True), nn.Conv2d(8, 2, 1))
    graph = trace(model, IMAGE)
    assert {("0.weight", 0), ("1.expand.weight", 0), ("1.reduce.weight", 1)} <= max(
        coupled(graph), key=len
    )
    assert sorted(len(f.groups) for f in graph.families) == [4, 8]


def test_flattened_positions_follow_their_channel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 36, 2))
    graph = trace(model, IMAGE)
    (columns,) = [d for d in graph.dimensions if d.key == ("2.weight", 1)]
    assert columns.channels.tolist() == [c for c in range(5) for _ in range(36)]


def test_depthwise_convolutions_lose_whole_groups_and_say_so() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 2, 1))
    graph = trace(model, IMAGE)
    assert graph.prunable == 6
    assert {a.name for a in graph.attributes if a.module == "1"} == {
        "in_channels",
        "out_channels",
        "groups",
    }


def test_frozen_parameters_and_detached_outputs_are_pruned_all_the_same() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 8, 1).requires_grad_(False)
            self.b = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).detach().data.relu())

    assert trace(Detached(), IMAGE).prunable == 8


def test_a_reused_convolution_ties_its_input_to_its_output() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), Reused(6), nn.Conv2d(6, 2, 1))
    graph = trace(model, IMAGE)
    assert graph.prunable == 6
    assert len(graph.families) == 1


def test_a_functional_convolution_on_computed_weights_is_pruned() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), Functional(6, 5), nn.Conv2d(5, 2, 1))
    graph = trace(model, IMAGE)
    assert graph.prunable == 11
    assert {("1.kernel", 0), ("1.gain", 0), ("2.weight", 1)} in coupled(graph)


def test_a_write_through_a_view_reaches_the_whole() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.b = nn.Conv2d(3, 4, 1)
            self.out = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            both = torch.cat([self.a(x), self.a(x)], 1)
            both[:, 4:] += self.b(x)
            return self.out(torch.sigmoid(both))

    model = randomise(Writes(), 0)
    assert check(model, IMAGE, 0).error <= 1e-9
    graph = trace(model, IMAGE)
    a, b = graph.dimension("a.weight", 0).channels, graph.dimension("b.weight", 0).channels
    assert a.tolist() == b.tolist()


def test_an_operation_without_a_rule_keeps_what_it_touches_and_says_which() -> None:
    class Runs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.b = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.masked_scatter(self.a(x), x[:, :1] > 0, x))

    graph = trace(Runs(), IMAGE)
    assert graph.prunable == 0
    assert any("no rule for aten.masked_scatter" in u.reason for u in graph.untouched)
    assert graph.uncounted == ("aten.masked_scatter in the model",)


def test_a_softmax_over_channels_is_one_over_the_kept_ones() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1), nn.Conv2d(4, 2, 1))
    graph = trace(model, IMAGE)
    assert graph.prunable == 4
    seen = [check(randomise(model, 0), IMAGE, seed, graph) for seed in range(4)]
    assert max(one.error for one in seen) <= 1e-9
    assert max(one.effect for one in seen) > 1e-3


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1)
    )
    model.train()
    model[0].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace(model, IMAGE)
    assert [m.training for m in model] == [False, True, True, True]
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_every_tensor_in_nested_outputs_is_kept_whole() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.b = nn.Conv2d(4, 5, 1)
            self.c = nn.Conv2d(5, 6, 1)

        def forward(self, x: Tensor) -> dict[str, object]:
            y = self.a(x)
            z = self.b(y)
            return OrderedDict(deep={"z": [z]}, logits=self.c(z))

    graph = trace(Nested(), IMAGE)
    assert graph.prunable == 4
    assert {u.tensor: u.count for u in graph.untouched} == {"b.weight": 5, "c.weight": 6}


def test_a_head_that_only_training_reaches_follows_its_input() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.aux = nn.Conv2d(4, 2, 1)
            self.main = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            y = self.a(x)
            return (self.main(y), self.aux(y)) if self.training else self.main(y)

    graph = trace(Auxiliary(), IMAGE)
    assert ("aux.weight", 1) in graph.families[0].dimensions
    assert sum(op.module == "aux" for op in graph.ops) == 0


def test_layers_that_nothing_reaches_are_listed() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.idle = nn.Conv2d(4, 4, 1)
            self.b = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    graph = trace(Idle(), IMAGE)
    assert ("idle.weight", "not reached by the forward") in [
        (u.tensor, u.reason) for u in graph.untouched
    ]


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("first line\nsecond line")


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Raises(), r"forward fails on the example input \(1x3x8x8\): RuntimeError: first line$"),
        (Nothing(), "returns no tensor"),
        (nn.LazyConv2d(3, 3), "not initialised"),
        (nn.Conv2d(3, 3, 3, device="meta"), "meta device"),
        (nn.Conv2d(4, 3, 3), "forward fails on the example input"),
    ],
)
def test_models_that_can_not_be_traced_are_refused_in_one_line(
    model: nn.Module, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        trace(model, IMAGE)
    assert "\n" not in str(caught.value)


def test_a_sample_without_a_batch_dimension_is_traced_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    batched, single = trace(model, IMAGE), trace(model, IMAGE[0])
    assert single.prunable == batched.prunable == 6
    counted = [
        [op.coefficient for op in graph.ops if op.coefficient] for graph in (single, batched)
    ]
    assert counted[0] == counted[1]
    assert check(randomise(model, 0), IMAGE[0], 0).error <= 1e-9


class BestScore(nn.Module):
    """Answers with the best class and its score, behind a gate by the largest of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.gate = nn.Conv2d(1, 1, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = y * self.gate(y.amax(1, keepdim=True))
        best, place = self.head(y.mean((2, 3))).softmax(1).max(1)
        return best * 2 + place


def test_channels_whose_largest_is_returned_are_outputs() -> None:
    graph = trace(BestScore(), IMAGE)
    assert [
        (u.tensor, u.count, u.reason) for u in graph.untouched if u.tensor == "head.weight"
    ] == [("head.weight", 5, "an output of the model")]
    assert graph.prunable == 6  # a contraction stands between the gate's maximum and the answer


def test_the_best_of_each_row_and_nothing_beside_nothing() -> None:
    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.a(x).flatten(2)
            best = rows.topk(3, 2).values[..., None]
            none = torch.cat([rows[:, :, :0], rows[:, :, 64:]], 2)
            return self.b(best) + none.sum()

    model = randomise(Chooses(), 0)
    graph = trace(model, IMAGE)
    assert graph.prunable == 6
    assert check(model, IMAGE, 0, graph).error <= 1e-9


def test_another_resolution_or_setting_is_another_computation_of_the_same_network() -> None:
    """So that a time of one is never taken for that of another."""

    def traced(size: int, dilation: int = 1) -> ChannelGraph:
        layers = nn.Conv2d(3, 6, 3, dilation=dilation), nn.ReLU(), nn.Conv2d(6, 2, 3)
        return trace(nn.Sequential(*layers), torch.rand(1, 3, size, size))

    one, again, larger, dilated = traced(8), traced(8), traced(16), traced(10, dilation=2)
    assert one.network == again.network == larger.network == dilated.network
    assert one.computation == again.computation
    assert len({one.computation, larger.computation, dilated.computation}) == 3
