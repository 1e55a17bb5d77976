"""Outputs by name: which keeps what, and which may shrink."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcprune.cost import CostModel
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph
from lcprune.slimming import difference, slim
from lcprune.testing import random_keep
from lcprune.tracing import LabelFlow, apply_rule, as_examples, is_free, run_labelled, trace
from oracle import plan_of, randomise

IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Fields(NamedTuple):
    logits: Tensor
    features: list[Tensor]


@dataclasses.dataclass
class Answer:
    logits: Tensor
    state: Tensor


class Returns(nn.Module):
    """Logits and two feature maps, packed in whatever way."""

    def __init__(self, pack: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 7, 3), nn.Conv2d(7, 4, 1)
        self.pack = pack

    def forward(self, x: Tensor) -> Any:
        a = self.a(x)
        b = self.b(a.relu())
        return self.pack(self.head(b.relu()), a, b)


PACKINGS: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Any], tuple[str, str, str]]] = {
    "tuple": (lambda y, a, b: (y, a, b), ("0", "1", "2")),
    "nested": (lambda y, a, b: (y, {"state": [a, b]}), ("0", "1.state.0", "1.state.1")),
    "mapping": (lambda y, a, b: OrderedDict(y=y, a=a, b=b), ("y", "a", "b")),
    "fields": (lambda y, a, b: Fields(y, [a, b]), ("logits", "features.0", "features.1")),
    "dataclass": (lambda y, a, b: (Answer(y, a), b), ("0.logits", "0.state", "1")),
    "object": (lambda y, a, b: type("Free", (), {"__init__": lambda s: s.__dict__.update(
        y=y, a=a, b=b)})(), ("y", "a", "b")),
}  # fmt: skip


@pytest.mark.parametrize(("pack", "names"), PACKINGS.values(), ids=PACKINGS)
def test_reasons_name_the_output(
    pack: Callable[[Tensor, Tensor, Tensor], Any], names: tuple[str, str, str]
) -> None:
    graph = trace(Returns(pack), IMAGE)
    assert graph.prunable == 0
    tensors = ("head.weight", "a.weight", "b.weight")
    assert {u.tensor: u.reason for u in graph.untouched} == {
        tensor: f"output {name} of the model" for tensor, name in zip(tensors, names, strict=True)
    }


@pytest.mark.parametrize(("pack", "names"), PACKINGS.values(), ids=PACKINGS)
def test_outputs_that_are_free_shrink(
    pack: Callable[[Tensor, Tensor, Tensor], Any], names: tuple[str, str, str]
) -> None:
    model = randomise(Returns(pack), 0)
    graph = trace(model, IMAGE, outputs={names[1]: "free"})
    assert graph.free_outputs == (names[1],)
    assert graph.prunable == 6
    assert [u.tensor for u in graph.untouched] == ["b.weight", "head.weight"]
    assert len(graph.outputs) == 3
    small = slim(model, plan_of(graph, np.arange(6) % 2 == 0))
    (inputs,) = as_examples(IMAGE)
    flow = LabelFlow(small, apply_rule)
    shapes = {out.name: out.tensor.shape[1] for out in run_labelled(flow, small, inputs)}
    assert shapes == dict(zip(names, (4, 3, 7), strict=True))


def test_an_output_within_a_free_one_is_free() -> None:
    pack = PACKINGS["nested"][0]
    graph = trace(Returns(pack), IMAGE, outputs={"1.state": "free"})
    assert graph.prunable == 13
    assert trace(Returns(pack), IMAGE, outputs={1: "free"}).prunable == 13
    assert trace(Returns(pack), IMAGE, outputs={"1.state.1": "free"}).prunable == 7


def test_the_only_output_has_the_empty_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3))
    graph = trace(model, IMAGE, outputs={"": "free"})
    assert graph.prunable == 11
    assert not graph.untouched


def test_one_tensor_under_two_names_is_free_only_under_both() -> None:
    both: Callable[[Tensor, Tensor, Tensor], Any] = lambda y, a, b: {"y": y, "a": a, "again": a}  # noqa: E731
    assert trace(Returns(both), IMAGE, outputs={"a": "free"}).prunable == 7
    assert trace(Returns(both), IMAGE, outputs={"a": "free", "again": "free"}).prunable == 13


def test_the_reference_leaves_of_a_free_output_what_a_slimmed_model_returns() -> None:
    model = randomise(Returns(PACKINGS["nested"][0]), 0).double()
    graph = trace(model, IMAGE.double(), outputs={"1": "free"})
    keep = random_keep(graph, np.random.default_rng(0))
    plan = plan_of(graph, keep)
    flow = LabelFlow(model, apply_rule)
    kept = torch.ones(flow.labels.count, dtype=torch.bool)
    for source in flow.labels.sources:
        stays = plan.kept.get((source.tensor, source.dim))
        if stays is not None:
            kept[source.start : source.start + source.size] = False
            kept[source.start + torch.tensor(stays)] = True
    flow.mask.keep_only(kept)
    (inputs,) = as_examples(IMAGE.double())
    expected = [
        flow.left(out.tensor) if is_free(out.name, graph.free_outputs) else out.tensor
        for out in run_labelled(flow, model, inputs)
    ]
    y, rest = slim(model, plan)(IMAGE.double())
    assert not keep.all()
    for reference, actual in zip(expected, [y, *rest["state"]], strict=True):
        torch.testing.assert_close(reference, actual, rtol=1e-9, atol=1e-9)


class Recurrent(nn.Module):
    """Takes a state and returns the next; without one it begins with zeros."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.stem, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 4, 1)
        self.gates = nn.Conv2d(2 * width, 2 * width, 3, padding=1)

    def forward(self, x: Tensor, state: Tensor | None = None) -> dict[str, Tensor]:
        x = self.stem(x)
        state = torch.zeros_like(x) if state is None else state
        update, new = self.gates(torch.cat([x, state], 1)).split(self.width, 1)
        state = torch.lerp(state, new.tanh(), update.sigmoid())
        return {"y": self.head(state), "state": state}


def test_a_state_that_is_returned_can_shrink() -> None:
    model = randomise(Recurrent(), 0)
    graph = trace(model, IMAGE)
    assert graph.prunable == 0
    assert "output state of the model" in {u.reason for u in graph.untouched}
    free = trace(model, IMAGE, outputs={"state": "free"})
    assert free.prunable == 8
    small = slim(model, plan_of(free, np.arange(8) < 3))
    first = small(IMAGE)
    assert first["state"].shape[1] == small.width == 3
    assert small(IMAGE, first["state"])["y"].shape == model(IMAGE)["y"].shape
    whole, half = (CostModel(free).evaluate(keep)["macs"] for keep in (None, np.arange(8) < 4))
    assert half < 0.5 * whole


def test_a_state_that_is_given_has_a_size_that_stays() -> None:
    given = (IMAGE, torch.rand(1, 8, 8, 8))
    graph = trace(Recurrent(), given, outputs={"state": "free"})
    assert graph.prunable == 8  # of the stem, which is no part of the state
    stays = {u.tensor: (u.count, u.reason) for u in graph.untouched}
    assert stays["gates.weight"] == (16, "a fixed size at aten.lerp in the model")


def test_what_training_returns_can_be_free_too() -> None:
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1), nn.Conv2d(6, 5, 1)

        def forward(self, x: Tensor) -> Any:
            x = self.a(x)
            y = self.b(x)
            return {"y": y, "x": x, "c": self.c(x)} if self.training else y

    graph = trace(Features(), IMAGE)
    assert graph.prunable == 0
    assert {u.tensor: u.reason for u in graph.untouched}["a.weight"] == (
        "output x of the model in training mode"
    )
    assert trace(Features(), IMAGE, outputs={"x": "free"}).prunable == 6


def test_the_largest_of_a_free_output_is_free() -> None:
    class Best(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.a(x)
            return self.b(x), x.amax(1)

    assert trace(Best(), IMAGE).prunable == 0
    assert trace(Best(), IMAGE, outputs={1: "free"}).prunable == 6


WRONG: dict[str, tuple[Any, str]] = {
    "position": ({3: "free"}, r"names '3', .* expected one of '0', '1', '2'$"),
    "name": ({"state": "free"}, "names 'state', which the model does not return"),
    "only": ({"": "free"}, "names ''"),
    "part of a name": ({"1.x": "free"}, "names '1.x'"),
    "word": ({1: "fixed"}, r"outputs has 1: 'fixed'; expected a dictionary such as \{1: 'free'\}"),
    "type": ([1], r"outputs is a list of 1, expected a dictionary"),
    "key": ({True: "free"}, "outputs has True: 'free'"),
}


@pytest.mark.parametrize(("outputs", "message"), WRONG.values(), ids=WRONG)
def test_outputs_that_are_not_there_are_refused_with_those_that_are(
    outputs: Mapping[int | str, Literal["free"]], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        trace(Returns(PACKINGS["tuple"][0]), IMAGE, outputs=outputs)
    assert "\n" not in str(caught.value)


def test_a_graph_without_free_outputs_says_so() -> None:
    graph: ChannelGraph = trace(Returns(PACKINGS["tuple"][0]), IMAGE)
    assert graph.free_outputs == ()
    assert graph.training_checked


class Elsewhere(nn.Module):
    """Training returns the features under another path; ``twice`` under two."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.a, self.head, self.twice = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1), twice

    def forward(self, x: Tensor) -> Any:
        x = self.a(x)
        if not self.training:
            return self.head(x), {"feats": x}
        if self.twice:
            return {"one": {"feats": x}, "other": {"feats": self.head(x)}}
        return {"feats": x, "loss": self.head(x).mean()}


@pytest.mark.parametrize("name", ["1.feats", "feats"])
def test_one_name_frees_an_output_in_both_modes(name: str) -> None:
    model = randomise(Elsewhere(twice=False), 0)
    graph = trace(model, IMAGE, outputs={name: "free"})
    assert graph.prunable == 6
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    plan = dataclasses.replace(plan, free_outputs=graph.free_outputs)
    seen = difference(model, slim(model, plan), plan, IMAGE)
    assert seen.training_checked
    assert seen.error <= 1e-9


def test_a_name_that_may_mean_two_outputs_of_training_frees_none_there() -> None:
    graph = trace(Elsewhere(twice=True), IMAGE, outputs={"1.feats": "free"})
    reasons = {u.tensor: u.reason for u in graph.untouched}
    assert reasons["a.weight"] == "output one.feats of the model in training mode"
    both: Any = {"1.feats": "free", "one.feats": "free"}
    assert trace(Elsewhere(twice=True), IMAGE, outputs=both).prunable == 6
