import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import Steps, graphs, make_graph, steps
from lcprune.cost import CostModel
from lcprune.errors import BudgetError, InputError
from lcprune.graph import FIXED, ChannelGraph, Op
from lcprune.ranking import Cut

MIN_KEEP = st.sampled_from([0.0, 0.1, 0.5, 0.75])


RoundTo = int | Steps


@st.composite
def cases(
    draw: st.DrawFn, most_groups: int = 9
) -> tuple[ChannelGraph, np.ndarray, dict[str, int], float, RoundTo]:
    graph = draw(graphs(most_groups))
    # Few distinct scores, so that ties are common.
    scores = draw(st.lists(st.integers(-3, 3), min_size=graph.prunable, max_size=graph.prunable))
    before = CostModel(graph).evaluate()
    names = draw(st.sampled_from([("macs",), ("params",), ("macs", "params")]))
    limits = {name: draw(st.integers(0, before[name])) for name in names}
    round_to: RoundTo = draw(st.sampled_from([1, 2, 3, 4, 5, 0, 0]))
    if round_to == 0:
        round_to = draw(steps([len(family.groups) for family in graph.families]))
    return graph, np.array(scores, dtype=np.float64), limits, draw(MIN_KEEP), round_to


def cut_of(graph: ChannelGraph, limits: dict[str, int], min_keep: float, round_to: RoundTo) -> Cut:
    cost = CostModel(graph)
    if isinstance(round_to, Steps):
        return Cut(graph, cost, limits, min_keep, "auto", [round_to])
    return Cut(graph, cost, limits, min_keep, round_to)


def rungs(graph: ChannelGraph, round_to: RoundTo, family: int) -> list[int]:
    """How many groups a family may keep, whatever its floor, by definition."""
    if isinstance(round_to, Steps):
        return list(round_to.widths[family])
    size = len(graph.families[family].groups)
    return [k for k in range(1, size + 1) if k % round_to == 0 or k == size]


def removable(
    graph: ChannelGraph, scores: np.ndarray, min_keep: float, round_to: RoundTo
) -> list[list[int]]:
    """The blocks that may go, in the order in which they do, by definition."""
    blocks = []
    for family in graph.families:
        lowest = sorted(family.groups, key=lambda g: (scores[g], g))
        legal = rungs(graph, round_to, family.id)
        legal = [k for k in legal if k >= min_keep * len(lowest) - 1e-9]
        for left, now in itertools.pairwise(reversed(legal)):
            blocks.append(lowest[: left - now])
            lowest = lowest[left - now :]
    return sorted(blocks, key=lambda block: max((scores[g], g) for g in block))


def legal(graph: ChannelGraph, keep: np.ndarray, round_to: RoundTo) -> bool:
    """Whether every family keeps a number of groups that it may keep."""
    kept = [int(keep[list(f.groups)].sum()) for f in graph.families]
    return all(k in rungs(graph, round_to, i) for i, k in enumerate(kept))


def cut_one_by_one(
    graph: ChannelGraph,
    scores: np.ndarray,
    limits: dict[str, int],
    min_keep: float,
    round_to: RoundTo,
) -> np.ndarray | None:
    """The rule without any shortcut; none where it can't be met."""
    cost = CostModel(graph)

    def fits(keep: np.ndarray) -> bool:
        now = cost.evaluate(keep)
        return all(now[name] <= limit for name, limit in limits.items())

    keep = np.ones(graph.prunable, dtype=bool)
    removed: list[list[int]] = []
    for block in removable(graph, scores, min_keep, round_to):
        if fits(keep):
            break
        keep[block] = False
        removed.insert(0, block)
    if not fits(keep):
        return None
    before = None
    while before is None or len(removed) < before:
        before = len(removed)
        for block in list(removed):
            keep[block] = True
            if fits(keep) and legal(graph, keep, round_to):
                removed.remove(block)
            else:
                keep[block] = False
    return keep


@settings(max_examples=100)
@given(cases(most_groups=16))
def test_the_cut_is_the_rule_applied_one_by_one(case: tuple) -> None:
    compare_one_by_one(case)


@pytest.mark.thorough
@settings(max_examples=400)
@given(cases(most_groups=16))
def test_many_cuts_are_the_rule_applied_one_by_one(case: tuple) -> None:
    compare_one_by_one(case)


def compare_one_by_one(case: tuple) -> None:
    graph, scores, limits, min_keep, round_to = case
    cut = cut_of(graph, limits, min_keep, round_to)
    expected = cut_one_by_one(graph, scores, limits, min_keep, round_to)
    if expected is None:
        with pytest.raises(BudgetError):
            cut.keep(scores)
    else:
        assert cut.keep(scores).tolist() == expected.tolist()


@settings(max_examples=40)
@given(cases())
def test_against_every_possible_choice_of_blocks(case: tuple) -> None:
    compare_with_every_choice(case)


@pytest.mark.thorough
@settings(max_examples=120)
@given(cases())
def test_many_cuts_against_every_possible_choice_of_blocks(case: tuple) -> None:
    compare_with_every_choice(case)


def compare_with_every_choice(case: tuple) -> None:
    graph, scores, limits, min_keep, round_to = case
    cost = CostModel(graph)
    cut = cut_of(graph, limits, min_keep, round_to)
    blocks = removable(graph, scores, min_keep, round_to)
    may_go = {group for block in blocks for group in block}

    def fits(keep: np.ndarray) -> bool:
        now = cost.evaluate(keep)
        return all(now[name] <= limit for name, limit in limits.items())

    possible = []
    for choice in itertools.product([False, True], repeat=len(blocks)):
        mask = np.ones(graph.prunable, dtype=bool)
        for block, gone in zip(blocks, choice, strict=True):
            mask[block] = not gone
        if legal(graph, mask, round_to) and fits(mask):
            possible.append(mask)
    if not possible:
        with pytest.raises(BudgetError):
            cut.keep(scores)
        return
    keep = cut.keep(scores)
    assert any((mask == keep).all() for mask in possible)
    # Maximal: nothing that is possible keeps all of this and a block more, or any more where a
    # block never needs another to leave its family a width that it may have.
    masks = possible
    if isinstance(round_to, Steps):
        of = {group: i for i, block in enumerate(blocks) for group in block}
        masks = [m for m in possible if len({of[g] for g in np.flatnonzero(m & ~keep)}) == 1]
    assert not any((mask >= keep).all() and mask.sum() > keep.sum() for mask in masks)
    if round_to != 1:
        return
    for family in graph.families:
        for low, high in itertools.permutations(family.groups, 2):
            if cost.signatures[low] == cost.signatures[high] and keep[low] and not keep[high]:
                assert (scores[low], low) > (scores[high], high) or low not in may_go


@given(cases(), st.integers(0, 10**6))
def test_a_mask_is_refused_where_no_cut_could_give_it(case: tuple, seed: int) -> None:
    graph, _, limits, min_keep, round_to = case
    cost = CostModel(graph)
    cut = cut_of(graph, limits, min_keep, round_to)
    generator = np.random.default_rng(seed)
    keep = generator.random(graph.prunable) < generator.choice([0.5, 0.8, 1.0])
    now = cost.evaluate(keep)
    possible = legal(graph, keep, round_to) and all(now[name] <= limits[name] for name in limits)
    for family in graph.families:
        kept = int(keep[list(family.groups)].sum())
        possible &= kept >= min_keep * len(family.groups) - 1e-9
    if possible:
        cut.check(keep)
    else:
        with pytest.raises(InputError, match="expected at"):
            cut.check(keep)


@pytest.mark.parametrize(
    ("round_to", "floors"),
    [(1, [3, 1, 1]), (4, [4, 4, 1]), (8, [8, 8, 1]), (16, [16, 10, 1]), (10**30, [30, 10, 1])],
)
def test_floors_are_multiples_or_the_whole_family(round_to: int, floors: list[int]) -> None:
    graph = make_graph(
        [30, 10, 1],
        [list(range(30)), list(range(30, 40)), [40]],
        [Op("conv", "a", 1, (0,)), Op("conv", "b", 1, (1,)), Op("conv", "c", 1, (2,))],
    )
    cost = CostModel(graph)
    cut = Cut(graph, cost, {"macs": sum(floors)}, 0.1, round_to)
    assert cut.floors.tolist() == floors
    assert cost.evaluate(cut.keep(np.arange(41.0)))["macs"] == sum(floors)


def test_a_block_goes_when_the_turn_of_its_highest_group_comes() -> None:
    # The first block of the first family is 0 and 1, but 1 is not due before 4 and 5.
    graph = make_graph(
        [4, 4],
        [[0, 1, 2, 3], [4, 5, 6, 7]],
        [Op("conv", "a", 1, (0,)), Op("conv", "b", 1, (1,))],
    )
    scores = np.array([0.0, 5.0, 8.0, 9.0, 1.0, 2.0, 6.0, 7.0])
    gone = [
        np.flatnonzero(~Cut(graph, CostModel(graph), {"macs": 8 - n}, 0, 2).keep(scores)).tolist()
        for n in (1, 2, 3, 4)
    ]
    assert gone == [[4, 5], [4, 5], [0, 1, 4, 5], [0, 1, 4, 5]]


def test_the_odd_part_returns_only_with_the_whole_family() -> None:
    # One of seven goes first; what it costs alone would fit again, but six of seven is no
    # multiple of three.
    graph = make_graph([7], [list(range(7))], [Op("conv", "a", 1, (0,))])
    for limit, kept in ((6, 6), (5, 3), (4, 3), (3, 3)):
        keep = Cut(graph, CostModel(graph), {"macs": limit}, 0.1, 3).keep(np.arange(7.0))
        assert keep.tolist() == [i >= 7 - kept for i in range(7)]


def test_blocks_of_one_family_may_cost_differently() -> None:
    # Group 2 stands for ten channels: its block does not fit again, the one below it does.
    graph = make_graph([6], [[0, 1, *[2] * 10, 3, 4, 5]], [Op("conv", "a", 1, (0,))])
    keep = Cut(graph, CostModel(graph), {"macs": 4}, 0.1, 2).keep(np.arange(6.0))
    assert keep.tolist() == [True, True, False, False, True, True]


def layers(sizes: list[int], of: list[int]) -> ChannelGraph:
    """Families of so many groups, each of which is ``of`` channels of its layer."""
    starts = [0, *itertools.accumulate(sizes)]
    vectors = [
        [group for group in range(low, high) for _ in range(each)]
        for (low, high), each in zip(itertools.pairwise(starts), of, strict=True)
    ]
    ops = [Op("conv", f"{i}", 1, (i,)) for i in range(len(sizes))]
    return make_graph(sizes, vectors, ops)


@pytest.mark.parametrize(
    ("groups", "channels", "rungs"),
    [
        (64, 1, [8, 16, 24, 32, 40, 48, 56, 64]),
        (32, 1, [8, 16, 24, 32]),
        (35, 1, [8, 16, 24, 32, 35]),
        (31, 1, [4, 8, 12, 16, 20, 24, 28, 31]),
        (8, 1, [4, 8]),
        (5, 1, [4, 5]),
        (4, 1, [4]),
        (3, 1, [1, 2, 3]),
        (1, 1, [1]),
        (8, 16, [1, 2, 3, 4, 5, 6, 7, 8]),  # heads
        (12, 4, [2, 4, 6, 8, 10, 12]),
        (4, 4, [1, 2, 3, 4]),
        (16, 3, [8, 16]),
        (9, 3, [4, 8, 9]),
    ],
)
def test_without_a_table_auto_is_what_all_engines_like(
    groups: int, channels: int, rungs: list[int]
) -> None:
    graph = layers([groups], [channels])
    cut = Cut(graph, CostModel(graph), {"macs": 10**6}, 0.1, "auto")
    assert [own.tolist() for own in cut.blocks.rungs] == [rungs]


def test_a_family_in_layers_of_several_widths_suits_all_of_them() -> None:
    # As many channels as groups in one layer, four times as many before a pixel shuffle; pinned
    # and fixed channels of a layer are not the family's.
    vectors = [[*range(48), FIXED, 48], [group for group in range(48) for _ in range(4)]]
    graph = make_graph([48], vectors, [Op("conv", "a", 1, (0,))], pinned=1)
    cut = Cut(graph, CostModel(graph), {"macs": 10**6}, 0.3, "auto")
    assert cut.blocks.rungs[0].tolist() == [16, 24, 32, 40, 48]


def test_the_widths_of_the_first_resource_that_names_some_are_taken() -> None:
    graph = layers([40, 6], [1, 1])
    first, second = Steps(((2, 3, 10, 33, 40), (5, 6))), Steps(((40,), (6,)))
    cut = Cut(graph, CostModel(graph), {"macs": 45}, 0.1, "auto", ["macs", first, second])
    assert [own.tolist() for own in cut.blocks.rungs] == [[10, 33, 40], [5, 6]]
    scores = np.arange(46.0)
    assert np.flatnonzero(~cut.keep(scores)).tolist() == list(range(7))
    exact = Cut(graph, CostModel(graph), {"macs": 45}, 0.1, 1, [first])
    assert np.flatnonzero(~exact.keep(scores)).tolist() == [0]


@pytest.mark.parametrize(
    "widths",
    [((1, 2),), ((1, 2), (2,)), ((2, 1, 4), (2,)), ((0, 4), (2,)), ((), (2,)), ((1.0, 4.0), (2,)),
     ((1, 1, 4), (2,)), ((1, 4, 5), (2,)), ((4,), (2,), (1,))],
)  # fmt: skip
def test_senseless_widths_of_a_resource_are_refused(widths: tuple[tuple[int, ...], ...]) -> None:
    graph = layers([4, 2], [1, 1])
    with pytest.raises(InputError, match="rungs of steps"):
        Cut(graph, CostModel(graph), {"macs": 5}, 0.1, "auto", [Steps(widths)])


def test_a_refusal_names_exact_widths_where_they_would_do() -> None:
    graph = layers([64, 16], [1, 1])
    cost = CostModel(graph)
    liked = (
        r"macs <= 10 \(least possible 12, .* at least 10%, rounded up to widths that engines like;"
        r" with --round-to 1 \(round_to=1\) 9 macs are possible$"
    )
    with pytest.raises(BudgetError, match=liked):
        Cut(graph, cost, {"macs": 10}, round_to="auto").keep(np.arange(80.0))
    with pytest.raises(BudgetError, match=r"multiples of 32; with --round-to 1 .* 9 macs"):
        Cut(graph, cost, {"macs": 10}, round_to=32).keep(np.arange(80.0))
    with pytest.raises(BudgetError, match=r"widths that engines like$"):
        Cut(graph, cost, {"macs": 8}, round_to="auto").keep(np.arange(80.0))
    assert Cut(graph, cost, {"macs": 9}).keep(np.arange(80.0)).sum() == 9


def test_a_mask_off_the_widths_is_refused_with_those_that_there_are() -> None:
    graph = layers([128], [1])
    cut = Cut(graph, CostModel(graph), {"macs": 128}, round_to="auto")
    some = r"keeps 17 channels of f0, expected at least 16, one of 16, 24, .*72, …, 128$"
    with pytest.raises(InputError, match=some):
        cut.check(np.arange(128) < 17)
    cut.check(np.arange(128) < 24)


def test_what_would_leave_a_family_between_two_widths_stays_away() -> None:
    # After the dear block above 8 the one below it would fit, and leave 16 of 8, 24 or 32.
    graph = make_graph([32], [[*range(32), *[8] * 100]], [Op("conv", "a", 1, (0,))])
    cut = Cut(graph, CostModel(graph), {"macs": 24}, 0.1, "auto", [Steps(((8, 24, 32),))])
    assert np.flatnonzero(cut.keep(np.arange(32.0))).tolist() == list(range(24, 32))


def test_what_fits_only_once_another_block_is_back_returns() -> None:
    # Widths 8, 16, 32 and 40 of one family. The block above 8 has a group that costs too much;
    # the lowest one is as large, and with it the middle one leads to 32.
    vector = [*range(40), *[30] * 100]
    graph = make_graph([40], [vector], [Op("conv", "a", 1, (0,))])
    table = Steps(((8, 16, 32, 40),))
    cut = Cut(graph, CostModel(graph), {"macs": 40}, 0.1, "auto", [table])
    keep = cut.keep(np.arange(40.0))
    assert np.flatnonzero(~keep).tolist() == list(range(24, 32))


@pytest.mark.parametrize("round_to", [0, -8, 1.5, True, "8", "Auto", None])
def test_a_senseless_multiple_is_refused(round_to: object) -> None:
    graph = make_graph([2], [[0, 1]], [Op("conv", "a", 1, (0,))])
    with pytest.raises(InputError, match=r"round_to is .* integer of 1 or more, or auto"):
        Cut(graph, CostModel(graph), {"macs": 1}, 0.1, round_to)  # type: ignore[arg-type]


def test_the_least_possible_value_with_a_multiple() -> None:
    graph = make_graph([30], [list(range(30))], [Op("conv", "a", 7, (0,))])
    with pytest.raises(BudgetError, match=r"least possible 56, .* 10%, in multiples of 8"):
        Cut(graph, CostModel(graph), {"macs": 55}, 0.1, 8).keep(np.zeros(30))


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


def test_the_least_possible_value_of_bytes_has_a_unit_and_the_true_cause() -> None:
    # Two channels of four bytes are pinned: no floor is so low that less is left.
    parameters = [Op("parameter", "a", 1, (0,))]
    graph = make_graph([20], [[*range(20), 20, 21]], parameters=parameters, pinned=2)
    cost = CostModel(graph, ["weights"])
    floors = r"weights <= 15 B \(least possible 16 B, 18.18 %\), since every family .* 10%$"
    with pytest.raises(BudgetError, match=floors):
        Cut(graph, cost, {"weights": 15}).keep(np.zeros(20))
    pinned = r"weights <= 7 B .*, since what can't be pruned takes 8 B of weights by itself$"
    with pytest.raises(BudgetError, match=pinned):
        Cut(graph, cost, {"weights": 7}).keep(np.zeros(20))
    counted = r"params <= 1 .*, since what can't be pruned takes 2 params by itself$"
    with pytest.raises(BudgetError, match=counted):
        Cut(graph, CostModel(graph), {"params": 1}).keep(np.zeros(20))
    with pytest.raises(BudgetError, match=r"least possible 12 B.*since every family"):
        Cut(graph, cost, {"weights": 8}, min_keep=0.0).keep(np.zeros(20))
    with pytest.raises(InputError, match=r"mask of 88 B weights, expected at most 16 B"):
        Cut(graph, cost, {"weights": 16}).check(np.ones(20, dtype=bool))


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
