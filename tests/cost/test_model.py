import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import chain, graphs, make_graph
from lcprune.cost import CostModel
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, Op, Value


def terms(of: tuple[Op, ...] | tuple[Value, ...]) -> list[tuple[int, tuple[int, ...]]]:
    return [one.term if isinstance(one, Value) else (one.coefficient, one.factors) for one in of]


def by_counting(graph: ChannelGraph, keep: list[bool]) -> dict[str, int]:
    """The definition, channel by channel."""

    def total(terms: list[tuple[int, tuple[int, ...]]]) -> int:
        cost = 0
        for value, factors in terms:
            for factor in factors:
                channels = graph.vectors[factor].tolist()
                value *= sum(1 for c in channels if c < 0 or c >= graph.prunable or keep[c])
            cost += value
        return cost

    return {"macs": total(terms(graph.ops)), "params": total(terms(graph.values))}


@given(graphs(), st.data())
def test_cost_equals_counting_channels_one_by_one(graph: ChannelGraph, data: st.DataObject) -> None:
    bits = st.lists(st.booleans(), min_size=graph.prunable, max_size=graph.prunable)
    keep = data.draw(bits)
    model = CostModel(graph)
    assert model.evaluate(np.array(keep, dtype=bool)) == by_counting(graph, keep)
    assert model.evaluate() == by_counting(graph, [True] * graph.prunable)


@given(graphs())
def test_groups_of_one_signature_are_interchangeable(graph: ChannelGraph) -> None:
    model = CostModel(graph)
    for a in range(graph.prunable):
        for b in range(a):
            occurrences = [
                [int((graph.vectors[f] == g).sum())
                 for _, factors in (*terms(graph.ops), *terms(graph.values)) for f in factors]
                for g in (a, b)
            ]  # fmt: skip
            same = model.signatures[a] == model.signatures[b]
            assert same == (occurrences[0] == occurrences[1])
    assert model.populations.sum() == graph.prunable


def test_cost_of_a_chain_is_that_of_its_layers() -> None:
    network, graph = chain([8, 5])
    model = CostModel(graph)
    conv = 9 * 36
    assert model.evaluate() == {
        "macs": conv * 3 * 8 + conv * 8 * 5 + 5 * 4,
        "params": sum(parameter.numel() for parameter in network.parameters()),
    }
    keep = np.ones(13, dtype=bool)
    keep[[0, 1, 2, 8]] = False
    assert model.by_op(keep) == {"0": conv * 3 * 5, "3": conv * 5 * 4, "8": 4 * 4}


def test_a_module_used_twice_counts_twice() -> None:
    graph = make_graph([2], [[0, 1]], [Op("conv", "a", 3, (0,)), Op("conv", "a", 5, (0, 0))])
    assert CostModel(graph).by_op() == {"a": 3 * 2 + 5 * 4}


def test_large_costs_are_exact() -> None:
    graph = make_graph([1], [[0] * 3], [Op("conv", "a", 3**36 // 3, (0,)), Op("c", "b", 1, (0,))])
    assert CostModel(graph).evaluate()["macs"] == 3**36 + 3


def test_a_graph_without_channels_or_operations() -> None:
    assert CostModel(make_graph([], [])).evaluate() == {"macs": 0, "params": 0}


@pytest.mark.parametrize("keep", [np.ones(3, bool), np.ones(2), np.ones((1, 2), bool)])
def test_a_mask_that_does_not_fit_is_refused(keep: np.ndarray) -> None:
    model = CostModel(make_graph([2], [[0, 1]], [Op("conv", "a", 3, (0,))]))
    with pytest.raises(InputError, match=r"expected bool \(2,\)"):
        model.evaluate(keep)
