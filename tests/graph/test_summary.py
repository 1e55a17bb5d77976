"""A graph in words: its families and costs, what stays and why, and what no budget holds."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcprune.cost import Budget, CostModel
from lcprune.criteria import saliency
from lcprune.errors import BudgetError, LcpruneWarning
from lcprune.graph import quantity, staying, uncounted_sentence
from lcprune.ranking import rank
from lcprune.searching import search
from lcprune.tracing import trace
from tracing.rule_case import chain, conv, images


class State(nn.Module):
    """Returns its state, to which every layer but the head is coupled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = conv(3, 8), conv(8, 8), conv(8, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        state = x * self.gate(x).sigmoid()
        return {"logits": self.head(state), "state": state}


class Uncounted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = conv(3, 6), conv(6, 6), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.stem(x).relu())
        return self.head(x.masked_scatter(x > 0, x.square()))


def test_the_table_holds_families_costs_and_reasons() -> None:
    graph = trace(chain(conv(3, 6), nn.ReLU(), conv(6, 5), head=conv(5, 2)), images())
    text = graph.summary()
    assert str(graph) == f"{graph}" == text
    assert len(repr(graph)) < 100
    cost = CostModel(graph)
    before = cost.evaluate()
    for family in graph.families:
        keep = np.ones(graph.prunable, dtype=np.bool_)
        keep[family.groups[0]] = False
        after = cost.evaluate(keep)
        keep[list(family.groups)] = False
        share = 1 - cost.evaluate(keep)["macs"] / before["macs"]
        (row,) = re.findall(rf"^{re.escape(family.name)} .*$", text, re.MULTILINE)
        assert re.split(r"  +", row)[1:] == [
            str(len(family.groups)),
            str(len({tensor for tensor, _ in family.dimensions})),
            quantity(before["macs"] - after["macs"]),
            quantity(before["params"] - after["params"]),
            f"{share:.1%}",
        ]
    assert "an output of the model" in text
    assert quantity(before["macs"]) in text
    assert quantity(before["params"]) in text


def test_what_stays_is_summed_by_reason() -> None:
    graph = trace(State(), images())
    found = {one.reason: one for one in staying(graph)}
    pixels = 8 * 8 * 9
    assert found["output state of the model"].macs == pixels * (3 * 8 + 8 * 8)
    assert found["output state of the model"].layers == "stem, gate"
    assert found["output state of the model"].params == 9 * (3 * 8 + 8 * 8)
    assert found["output logits of the model"].filters == 2
    assert staying(graph)[0].reason == "output state of the model"


def test_a_refusal_names_what_stays_and_how_much_it_takes() -> None:
    model = State()
    graph = trace(model, images())
    with pytest.raises(BudgetError) as caught:
        rank(graph, saliency(model, graph, "l2"), Budget(macs=0.5))
    message = str(caught.value)
    assert "no channel can be pruned: output state of the model (85 % of" in message
    assert "stem, gate" in message
    assert "every family" not in message
    assert "outputs={NAME: 'free'}" in graph.summary()


def test_a_refusal_by_floors_blames_the_floors() -> None:
    model = chain(conv(3, 6), nn.ReLU(), conv(6, 5), head=conv(5, 2))
    graph = trace(model, images())
    with pytest.raises(BudgetError, match="every family of channels keeps at least 50%"):
        rank(graph, saliency(model, graph, "l2"), Budget(macs=0.2), min_keep=0.5)


def test_a_refusal_by_what_stays_names_the_largest_reason_first() -> None:
    model = chain(conv(3, 6), nn.ReLU(), conv(6, 30), head=conv(30, 2))
    graph = trace(model, images(), skip=["c"])
    with pytest.raises(BudgetError) as caught:
        rank(graph, saliency(model, graph, "l2"), Budget(macs=0.2))
    assert re.search(r"takes [\d,]+ macs by itself: left out by skip 'c'", str(caught.value))


def test_what_is_not_counted_is_listed_told_and_warned_of() -> None:
    model = Uncounted()
    graph = trace(model, images())
    assert graph.uncounted == ("aten.masked_scatter in the model",)
    assert "not counted: aten.masked_scatter in the model" in graph.summary()
    assert [u.tensor for u in graph.untouched] == ["mix.weight", "head.weight"]
    scores = saliency(model, graph, "l2")
    assert "mix" in uncounted_sentence(graph)
    with pytest.warns(LcpruneWarning, match=r"in no budget.*masked_scatter.*mix"):
        rank(graph, scores, Budget(macs=0.7))
    with pytest.warns(LcpruneWarning, match=r"in no budget.*masked_scatter"):
        search(
            model, graph, scores, Budget(macs=0.7), fitness=lambda _: 0.0,
            recalibrate=[torch.zeros(1, 3, 8, 8)], trials=1, strategy="random",
        )  # fmt: skip


def test_where_all_is_counted_nothing_is_warned_of() -> None:
    model = chain(conv(3, 6), nn.ReLU(), head=conv(6, 2))
    graph = trace(model, images())
    assert uncounted_sentence(graph) == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rank(graph, saliency(model, graph, "l2"), Budget(macs=0.5))
