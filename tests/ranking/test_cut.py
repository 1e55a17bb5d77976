import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import graphs, make_graph
from lcprune.cost import CostModel
from lcprune.errors import BudgetError, InputError
from lcprune.ranking import Cut
from lcprune.tracing._graph import ChannelGraph, Op

MIN_KEEP = st.sampled_from([0.0, 0.1, 0.5, 0.75])


@st.composite
def cases(
    draw: st.DrawFn, most_groups: int = 9
) -> tuple[ChannelGraph, np.ndarray, dict[str, int], float]:
    graph = draw(graphs(most_groups))
    # Few distinct scores, so that ties are common.
    scores = draw(st.lists(st.integers(-3, 3), min_size=graph.prunable, max_size=graph.prunable))
    before = CostModel(graph).evaluate()
    names = draw(st.sampled_from([("macs",), ("params",), ("macs", "params")]))
    limits = {name: draw(st.integers(0, before[name])) for name in names}
    return graph, np.array(scores, dtype=np.float64), limits, draw(MIN_KEEP)


def protected(graph: ChannelGraph, scores: np.ndarray, min_keep: float) -> set[int]:
    """The best of every family, by definition."""
    safe: set[int] = set()
    for family in graph.families:
        best = sorted(family.groups, key=lambda g: (scores[g], g), reverse=True)
        floor = next(k for k in range(1, len(best) + 1) if k >= min_keep * len(best) - 1e-9)
        safe.update(best[:floor])
    return safe


def cut_one_by_one(
    graph: ChannelGraph, scores: np.ndarray, limits: dict[str, int], min_keep: float
) -> np.ndarray | None:
    """The rule without any shortcut; none where it can't be met."""
    cost = CostModel(graph)

    def fits(keep: np.ndarray) -> bool:
        now = cost.evaluate(keep)
        return all(now[name] <= limit for name, limit in limits.items())

    safe = protected(graph, scores, min_keep)
    keep = np.ones(graph.prunable, dtype=bool)
    removed = []
    for group in sorted(range(graph.prunable), key=lambda g: (scores[g], g)):
        if fits(keep):
            break
        if group not in safe:
            keep[group] = False
            removed.append(group)
    if not fits(keep):
        return None
    for group in reversed(removed):
        keep[group] = True
        if not fits(keep):
            keep[group] = False
    return keep


@settings(max_examples=150)
@given(cases(most_groups=16))
def test_the_cut_is_the_rule_applied_one_by_one(case: tuple) -> None:
    graph, scores, limits, min_keep = case
    cut = Cut(graph, CostModel(graph), limits, min_keep)
    expected = cut_one_by_one(graph, scores, limits, min_keep)
    if expected is None:
        with pytest.raises(BudgetError):
            cut.keep(scores)
    else:
        assert cut.keep(scores).tolist() == expected.tolist()


@given(cases())
def test_against_every_possible_mask(case: tuple) -> None:
    graph, scores, limits, min_keep = case
    cost = CostModel(graph)
    cut = Cut(graph, cost, limits, min_keep)
    safe = protected(graph, scores, min_keep)

    def fits(keep: np.ndarray) -> bool:
        now = cost.evaluate(keep)
        return all(now[name] <= limit for name, limit in limits.items())

    masks = (np.array(bits) for bits in itertools.product([False, True], repeat=graph.prunable))
    possible = [mask for mask in masks if mask[sorted(safe)].all() and fits(mask)]
    if not possible:
        with pytest.raises(BudgetError):
            cut.keep(scores)
        return
    keep = cut.keep(scores)
    assert fits(keep)
    assert keep[sorted(safe)].all()
    # Maximal: nothing that is possible keeps all of this and more.
    assert not any((mask >= keep).all() and mask.sum() > keep.sum() for mask in possible)
    for family in graph.families:
        for low, high in itertools.permutations(family.groups, 2):
            if cost.signatures[low] == cost.signatures[high] and keep[low] and not keep[high]:
                assert (scores[low], low) > (scores[high], high) or low in safe


def test_a_family_keeps_its_share() -> None:
    graph = make_graph(
        [30, 10, 1],
        [list(range(30)), list(range(30, 40)), [40]],
        [Op("conv", "a", 1, (0,)), Op("conv", "b", 1, (1,)), Op("conv", "c", 1, (2,))],
    )
    cut = Cut(graph, CostModel(graph), {"macs": 5}, 0.1)
    assert cut.floors.tolist() == [3, 1, 1]
    keep = cut.keep(np.arange(41.0))
    assert np.flatnonzero(keep).tolist() == [27, 28, 29, 39, 40]


def test_shares_are_not_rounded_up_by_binary_fractions() -> None:
    graph = make_graph([100], [list(range(100))], [Op("conv", "a", 1, (0,))])
    assert 0.07 * 100 > 7
    assert Cut(graph, CostModel(graph), {"macs": 7}, 0.07).floors.tolist() == [7]


@pytest.mark.parametrize("cheap", range(1, 9))
def test_all_that_fits_is_given_back(cheap: int) -> None:
    # The expensive group goes last, and then there is room for all the cheap ones.
    graph = make_graph(
        [cheap + 1, 2],
        [list(range(cheap + 1)), [cheap + 1, cheap + 2]],
        [Op("conv", "a", 1, (0,)), Op("conv", "b", 100, (1,))],
    )
    scores = np.array([*range(cheap), 99.0, 50.0, 98.0])
    for room in range(cheap + 1):
        keep = Cut(graph, CostModel(graph), {"macs": 101 + room}).keep(scores)
        assert keep.tolist() == [i >= cheap - room for i in range(cheap)] + [True, False, True]


def test_the_least_possible_value_is_said_and_is_possible() -> None:
    graph = make_graph([30], [list(range(30))], [Op("conv", "a", 7, (0,))])
    cost = CostModel(graph)
    with pytest.raises(BudgetError, match=r"macs <= 20 \(least possible 21, 10.00 %\)"):
        Cut(graph, cost, {"macs": 20}).keep(np.zeros(30))
    assert cost.evaluate(Cut(graph, cost, {"macs": 21}).keep(np.zeros(30)))["macs"] == 21


def test_ties_go_by_group_id() -> None:
    graph = make_graph([4], [list(range(4))], [Op("conv", "a", 1, (0,))])
    keep = Cut(graph, CostModel(graph), {"macs": 2}).keep(np.zeros(4))
    assert keep.tolist() == [False, False, True, True]


def test_what_is_cheap_is_given_back() -> None:
    # Group 0 has the lowest score, but after group 1 is gone there is room for it.
    graph = make_graph(
        [2, 2],
        [[0, 1], [2, 3]],
        [Op("conv", "a", 1, (0,)), Op("conv", "b", 10, (1,))],
    )
    keep = Cut(graph, CostModel(graph), {"macs": 12}).keep(np.array([0.0, 9.0, 1.0, 8.0]))
    assert keep.tolist() == [True, True, False, True]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_must_be_finite(bad: float) -> None:
    graph = make_graph([2], [[0, 1]], [Op("conv", "a", 1, (0,))])
    with pytest.raises(InputError, match="finite"):
        Cut(graph, CostModel(graph), {"macs": 1}).keep(np.array([0.0, bad]))


@pytest.mark.parametrize("min_keep", [-0.1, 1.0, float("nan")])
def test_a_senseless_floor_is_refused(min_keep: float) -> None:
    graph = make_graph([2], [[0, 1]], [Op("conv", "a", 1, (0,))])
    with pytest.raises(InputError, match="min_keep"):
        Cut(graph, CostModel(graph), {"macs": 1}, min_keep)


@pytest.mark.parametrize("limits", [{}, {"watts": 3}])
def test_bounds_on_nothing_known_are_refused(limits: dict[str, int]) -> None:
    graph = make_graph([2], [[0, 1]], [Op("conv", "a", 1, (0,))])
    with pytest.raises(BudgetError, match="expected some of macs, params"):
        Cut(graph, CostModel(graph), limits)
