import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import chain, graphs, make_graph, places
from lcprune.cost import CostModel
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph
from lcprune.ranking import AttributeEdit, Plan, PlanBuilder


@given(graphs(), st.data())
def test_a_plan_holds_what_the_mask_says(graph: ChannelGraph, data: st.DataObject) -> None:
    bits = st.lists(st.booleans(), min_size=graph.prunable, max_size=graph.prunable)
    keep = np.array(data.draw(bits), dtype=bool)
    for family in graph.families:
        keep[family.groups[0]] = True
    plan = PlanBuilder(graph).plan(keep)
    gone: dict[tuple[str, int], set[int]] = {}
    for group, held in enumerate(places(graph)[: graph.prunable]):
        if not keep[group]:
            for tensor, dim, index in held:
                gone.setdefault((tensor, dim), set()).add(index)
    assert set(plan.kept) == set(gone)
    for key, indices in plan.kept.items():
        size = len(graph.dimension(*key).channels)
        assert list(indices) == [i for i in range(size) if i not in gone[key]]
    edits = {edit.module: edit.value for edit in plan.attributes}
    assert edits == {key[0].removesuffix(".weight"): len(v) for key, v in plan.kept.items()}
    assert plan.cost == CostModel(graph).evaluate(keep)
    assert Plan.from_json(plan.to_json()) == plan


def test_attributes_follow_and_the_rest_stays() -> None:
    _, graph = chain([4, 3])
    keep = np.array([True, False, True, True, True, True, True])
    plan = PlanBuilder(graph).plan(
        keep, criterion="l2", compensation="additive", latent={"f0": (0.5,)}
    )
    assert plan.attributes == (
        AttributeEdit("0", "out_channels", None, 3),
        AttributeEdit("1", "num_features", None, 3),
        AttributeEdit("3", "in_channels", None, 3),
    )
    assert set(plan.kept.values()) == {(0, 2, 3)}
    assert set(plan.kept) == {
        ("0.weight", 0),
        ("1.weight", 0),
        ("1.bias", 0),
        ("1.running_mean", 0),
        ("1.running_var", 0),
        ("3.weight", 1),
    }
    assert (plan.criterion, plan.compensation, plan.latent) == ("l2", "additive", {"f0": (0.5,)})


def test_keeping_all_changes_nothing() -> None:
    _, graph = chain([4])
    plan = PlanBuilder(graph).plan(np.ones(4, dtype=bool))
    assert (plan.kept, plan.attributes) == ({}, ())


def test_a_mask_that_empties_a_tensor_is_refused() -> None:
    graph = make_graph([2], [[0, 1]])
    with pytest.raises(InputError, match=r"no channel of t0\.weight"):
        PlanBuilder(graph).plan(np.zeros(2, dtype=bool))
