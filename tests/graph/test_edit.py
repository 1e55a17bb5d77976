"""Groups pinned or coupled after tracing: costs, plans and lists follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fooling import Honest32
from graphs import graphs, places
from lcprune.cost import CostModel
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, couple, pin
from lcprune.ranking import PlanBuilder
from lcprune.tracing import trace


def some_groups(graph: ChannelGraph, data: st.DataObject) -> list[int]:
    return sorted(data.draw(st.sets(st.integers(0, graph.prunable - 1))))


def is_consistent(graph: ChannelGraph) -> bool:
    """Families divide the prunable groups, and each touches what its groups touch."""
    members = [group for family in graph.families for group in family.groups]
    touched: dict[int, set[tuple[str, int]]] = {}
    for dimension in graph.dimensions:
        for group in set(dimension.channels.tolist()):
            touched.setdefault(group, set()).add(dimension.key)
    return (
        sorted(members) == list(range(graph.prunable))
        and [family.id for family in graph.families] == list(range(len(graph.families)))
        and len({family.name for family in graph.families}) == len(graph.families)
        and all(int(graph.family_of[g]) == f.id for f in graph.families for g in f.groups)
        and all(touched[g] == set(f.dimensions) for f in graph.families for g in f.groups)
    )


@given(graph=graphs(), data=st.data())
def test_costs_and_plans_over_the_rest_are_those_with_the_pinned_groups_kept(
    graph: ChannelGraph, data: st.DataObject
) -> None:
    chosen = some_groups(graph, data)
    pinned = pin(graph, dict.fromkeys(chosen, "by hand"))
    rest = np.ones(graph.prunable, dtype=bool)
    rest[chosen] = False
    keep = np.array(
        data.draw(st.lists(st.booleans(), min_size=pinned.prunable, max_size=pinned.prunable)),
        dtype=bool,
    )
    before = np.ones(graph.prunable, dtype=bool)
    before[rest] = keep
    assert CostModel(pinned).evaluate(keep) == CostModel(graph).evaluate(before)
    try:
        expected = PlanBuilder(graph).plan(before)
    except InputError:  # a tensor without channels
        return
    assert PlanBuilder(pinned).plan(keep) == expected


@given(graph=graphs(), data=st.data())
def test_pinned_groups_leave_their_families_and_keep_their_reasons(
    graph: ChannelGraph, data: st.DataObject
) -> None:
    reasons = {group: f"reason {group % 2}" for group in some_groups(graph, data)}
    pinned = pin(graph, reasons)
    assert pinned.prunable == graph.prunable - len(reasons)
    assert pinned.pinned_reasons == (
        *(reasons[group] for group in sorted(reasons)),
        *graph.pinned_reasons,
    )
    assert is_consistent(pinned) or not is_consistent(graph)
    assert [(f.name, f.dimensions) for f in pinned.families] == [
        (f.name, f.dimensions) for f in graph.families if set(f.groups) - set(reasons)
    ]
    # They hold what they held, with the pinned groups' after those of the prunable ones.
    rest = [group for group in range(graph.prunable) if group not in reasons]
    order = [*rest, *sorted(reasons), *range(graph.prunable, len(places(graph)))]
    assert places(pinned) == [places(graph)[i] for i in order]


@given(graph=graphs())
def test_nothing_pinned_or_coupled_is_the_identity(graph: ChannelGraph) -> None:
    assert pin(graph, {}) is graph
    assert couple(graph, []) is graph


@given(graph=graphs())
def test_all_pinned_leaves_nothing_prunable(graph: ChannelGraph) -> None:
    pinned = pin(graph, dict.fromkeys(range(graph.prunable), "by hand"))
    assert pinned.prunable == 0
    assert pinned.families == ()
    assert len(pinned.family_of) == 0
    everything = np.zeros(0, dtype=bool)
    assert CostModel(pinned).evaluate(everything) == CostModel(graph).evaluate()


@given(graph=graphs(), data=st.data())
def test_what_is_untouched_counts_every_filter_that_stays(
    graph: ChannelGraph, data: st.DataObject
) -> None:
    first = {group: f"reason {group % 2}" for group in some_groups(graph, data)}
    once = pin(graph, first)
    second = {group: "reason 0" for group in range(once.prunable) if group % 3 == 0}
    twice = pin(once, second)
    for tensor, dim in twice.producers:
        channels = twice.dimension(tensor, dim).channels
        expected: dict[str, int] = {}
        for group in channels[channels >= twice.prunable].tolist():
            reason = twice.pinned_reasons[group - twice.prunable]
            if reason != "held by hand":  # pinned before and not listed in graphs made by hand
                expected[reason] = expected.get(reason, 0) + 1
        entries = [e for e in twice.untouched if (e.tensor, e.dim) == (tensor, dim)]
        assert {e.reason: e.count for e in entries} == expected
        assert all(e.size == len(channels) for e in entries)


def test_what_is_untouched_in_a_traced_network_keeps_its_order() -> None:
    graph = trace(Honest32(), torch.randn(1, 3, 4, 4))
    last = [family.groups[-1] for family in graph.families]
    pinned = pin(graph, dict.fromkeys(last, "by hand"))
    assert [(e.tensor, e.count, e.size) for e in pinned.untouched] == [
        ("stem.0.weight", 1, 12),
        ("odd.0.weight", 1, 16),
        ("other.0.weight", 1, 16),
        ("after.0.weight", 1, 10),
        ("head.weight", 5, 5),
    ]


@given(graph=graphs(), data=st.data())
def test_coupled_groups_go_together_and_cost_what_they_cost(
    graph: ChannelGraph, data: st.DataObject
) -> None:
    group = st.integers(0, graph.prunable - 1)
    pairs = data.draw(st.lists(st.tuples(group, group), max_size=4))
    coupled = couple(graph, pairs)
    assert is_consistent(coupled) or not is_consistent(graph)
    # Which new group holds each old one: by what they hold, apart from the package's own way.
    owner = {}
    before_places = places(graph)[: graph.prunable]
    for new, held in enumerate(places(coupled)[: coupled.prunable]):
        for old, own in enumerate(before_places):
            if own <= held:
                owner[old] = new
    assert sorted(owner) == list(range(graph.prunable))
    assert all(owner[a] == owner[b] for a, b in pairs)
    assert coupled.prunable >= graph.prunable - len(pairs)
    firsts = [min(old for old in owner if owner[old] == new) for new in range(coupled.prunable)]
    assert firsts == sorted(firsts)
    keep = np.array(
        data.draw(st.lists(st.booleans(), min_size=coupled.prunable, max_size=coupled.prunable)),
        dtype=bool,
    )
    before = np.array([keep[owner[old]] for old in range(graph.prunable)])
    assert CostModel(coupled).evaluate(keep) == CostModel(graph).evaluate(before)


def two_convolutions() -> ChannelGraph:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 4, 1), torch.nn.Conv2d(4, 2, 1)
    )
    return trace(model, torch.randn(1, 3, 4, 4))


def test_families_that_are_coupled_become_one_with_the_first_name() -> None:
    graph = two_convolutions()
    coupled = couple(graph, [(0, 4), (1, 5), (2, 6), (3, 7)])
    (family,) = coupled.families
    assert family.name == graph.families[0].name
    assert set(family.dimensions) == {key for family in graph.families for key in family.dimensions}


def test_the_rest_of_a_family_that_is_partly_coupled_keeps_its_name() -> None:
    graph = two_convolutions()
    coupled = couple(graph, [(0, 4)])
    assert [(f.name, len(f.groups)) for f in coupled.families] == [("0#2", 1), ("0", 3), ("1", 3)]


@pytest.mark.parametrize("group", [-1, 8])
def test_a_group_that_is_not_prunable_is_refused(group: int) -> None:
    graph = two_convolutions()
    with pytest.raises(InputError, match=f"group {group} is not prunable"):
        pin(graph, {group: "by hand"})
    with pytest.raises(InputError, match=f"group {group} is not prunable"):
        couple(graph, [(0, group)])
