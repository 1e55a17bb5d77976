"""The search for what makes a check fail: minimal, complete, and within its bound."""

from __future__ import annotations

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from lcprune.slimming._culprits import Items, culprits

sets_of_items = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.sets(st.integers(0, n - 1), min_size=1, max_size=4), max_size=5),
    )
)


class Questions:
    """Fails where all items of one of ``bad`` are changed, and counts how often it is asked."""

    def __init__(self, bad: list[set[int]]) -> None:
        self.bad = bad
        self.count = 0

    def __call__(self, items: Items) -> bool:
        self.count += 1
        assert len(set(items)) == len(items)
        return any(one <= set(items) for one in self.bad)


@given(sets_of_items)
def test_sets_are_disjoint_minimal_and_leave_nothing_that_fails(
    case: tuple[int, list[set[int]]],
) -> None:
    n, bad = case
    fails = Questions(bad)
    found = culprits(range(n), fails)
    members = [item for items in found for item in items]
    assert len(set(members)) == len(members)
    for items in found:
        assert fails(items)
        assert not any(fails(tuple(i for i in items if i != left)) for left in items)
    assert not fails(tuple(i for i in range(n) if i not in members))


@given(n=st.integers(1, 200), data=st.data())
def test_one_set_is_found_within_the_bound(n: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=5))
    fails = Questions([bad])
    assert culprits(range(n), fails) == [tuple(sorted(bad))]
    assert fails.count <= len(bad) * (2 * ceil(log2(n)) + 2)


@given(n=st.integers(1, 100))
def test_questions_are_few_where_nothing_and_where_everything_fails(n: int) -> None:
    right = Questions([])
    assert culprits(range(n), right) == []
    assert right.count == 1
    wrong = Questions([{i} for i in range(n)])
    assert sorted(culprits(range(n), wrong)) == [(i,) for i in range(n)]
    assert wrong.count <= 2 * n
