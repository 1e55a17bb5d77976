"""Numbers that remember where they come from compute like numbers, now and with other leaves."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from lcprune.tracing._sizes import (
    AttributeValue,
    Expression,
    Kept,
    SizedFloat,
    SizedInt,
    evaluate,
    expression_of,
    leaves,
    sized_attributes,
)

OPERATIONS = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)
steps = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(1, 9), st.booleans()), max_size=6
)


def attribute(value: int) -> SizedInt:
    return SizedInt(value, AttributeValue("block", "width", None, value))


def computed(start: int, taken: list[tuple[Callable[[int, int], int], int, bool]]) -> int:
    value = start
    for operation, other, reverse in taken:
        value = operation(other, value) if reverse else operation(value, other)
    return value


@given(st.integers(1, 64), st.integers(1, 64), steps)
def test_arithmetic_is_that_of_numbers_for_any_value_of_the_leaf(
    value: int, changed: int, taken: list[tuple[Callable[[int, int], int], int, bool]]
) -> None:
    try:
        expected, expected_changed = computed(value, taken), computed(changed, taken)
    except ZeroDivisionError:
        assume(False)
    found = computed(attribute(value), taken)
    assert found == expected
    assert isinstance(found, SizedInt)
    assert evaluate(found.expression, lambda leaf: changed) == expected_changed
    assert {leaf.name for leaf in leaves(found.expression) if isinstance(leaf, AttributeValue)} == {
        "width"
    }


@given(st.integers(1, 64), st.floats(0.25, 4))
def test_what_becomes_a_float_still_knows_its_leaves(value: int, other: float) -> None:
    size = attribute(value)
    pairs = (
        (size / other, value / other),
        (size * other, value * other),
        (size - other, value - other),
        (size**-0.5, value**-0.5),
        (1 / size, 1 / value),
    )
    for found, expected in pairs:
        assert isinstance(found, SizedFloat)
        assert found == expected
        assert list(leaves(found.expression)) == list(leaves(size.expression))


def test_a_power_stays_a_size() -> None:
    assert attribute(3) ** 2 == 9
    assert evaluate((attribute(3) ** 2).expression, lambda leaf: 5) == 25


def test_a_division_by_a_leaf_that_becomes_zero_has_no_value() -> None:
    assert evaluate((12 // attribute(3)).expression, lambda leaf: 0) == -1


def test_a_literal_has_no_leaves() -> None:
    literal: Expression = expression_of(7)
    assert literal == 7
    assert not list(leaves(literal))


def test_numbers_are_ordinary_ones_to_tensors_copies_and_pickles() -> None:
    size = SizedInt(4, Kept(torch.arange(4)))
    assert torch.zeros(size, 2).shape == (4, 2)
    assert torch.equal(torch.ones(2) / size, torch.full((2,), 0.25))
    assert type(copy.deepcopy(size)) is int
    assert type(pickle.loads(pickle.dumps(size / 3))) is float
    assert torch.equal(size ** torch.ones(2), torch.full((2,), 4.0))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.parts = (3, 5)
        self.deep = True
        self.scale = 0.5
        self._private = 7


def test_attributes_remember_what_they_are_for_a_while() -> None:
    model = nn.Sequential(Block())
    block = model[0]
    with sized_attributes(model):
        assert block.width.expression == AttributeValue("0", "width", None, 8)
        assert block.parts == (3, 5)
        assert block.parts[1].expression == AttributeValue("0", "parts", 1, 5)
        assert block.deep is True
        assert type(block.scale) is float
        assert type(block._private) is int
    assert type(block.width) is int
    assert all(type(part) is int for part in block.parts)


def test_attributes_are_plain_again_after_an_error() -> None:
    model = nn.Sequential(Block())
    with pytest.raises(KeyError), sized_attributes(model):
        raise KeyError
    assert type(model[0].width) is int
