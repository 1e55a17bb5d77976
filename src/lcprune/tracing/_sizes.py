"""Integers that remember where they come from: a tensor's shape, or a module's attribute.

A size in a model's code follows the channels when the code computes it from a shape, and can be
made to follow when it is a module's attribute; a literal can't. While a model is traced, shapes
and attributes are integers that carry an expression, so that the three can be told apart.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Kept:
    """How many of a vector of labels are kept: a size that was read from a tensor's shape."""

    labels: Tensor


@dataclass(frozen=True)
class AttributeValue:
    """A module's integer attribute, or one entry of a tuple of them."""

    module: str
    name: str
    index: int | None
    value: int


@dataclass(frozen=True, eq=False)
class Combined:
    """What arithmetic makes of two expressions."""

    operation: Callable[[int, int], int]
    left: Expression
    right: Expression


Expression = Kept | AttributeValue | Combined | int


class SizedFloat(float):
    """A float that was computed of a sized integer on the left, or of two integers.

    Python does not ask a right operand that is an integer, so ``2.0 * size`` is a plain float.
    """

    expression: Expression

    def __new__(cls, value: float, expression: Expression) -> SizedFloat:
        self = super().__new__(cls, value)
        self.expression = expression
        return self

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float(self),)


class SizedInt(int):
    """An integer with the expression that it is the value of."""

    expression: Expression

    def __new__(cls, value: int, expression: Expression) -> SizedInt:
        self = super().__new__(cls, value)
        self.expression = expression
        return self

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)  # a copy of a model holds ordinary numbers

    def __truediv__(self, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        return SizedFloat(int(self) / other, self.expression)

    def __rtruediv__(self, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return SizedFloat(int(other) / int(self), self.expression)

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        value = pow(int(self), other, modulo)
        if isinstance(value, int):
            return SizedInt(value, Combined(operator.pow, self.expression, int(other)))
        return SizedFloat(float(value), self.expression)


def _forward(operation: Callable[[Any, Any], Any]) -> Callable[[SizedInt, Any], Any]:
    def apply(self: SizedInt, other: Any) -> Any:
        if isinstance(other, float):
            return SizedFloat(operation(int(self), other), self.expression)
        if not isinstance(other, int) or isinstance(other, bool):
            return NotImplemented
        value = operation(int(self), int(other))
        return SizedInt(value, Combined(operation, self.expression, expression_of(other)))

    return apply


def _backward(operation: Callable[[Any, Any], Any]) -> Callable[[SizedInt, Any], Any]:
    def apply(self: SizedInt, other: Any) -> Any:
        if not isinstance(other, int) or isinstance(other, bool):
            return NotImplemented
        value = operation(int(other), int(self))
        return SizedInt(value, Combined(operation, expression_of(other), self.expression))

    return apply


for _operation in (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod):
    setattr(SizedInt, f"__{_operation.__name__}__", _forward(_operation))
    setattr(SizedInt, f"__r{_operation.__name__}__", _backward(_operation))


def expression_of(value: int | SizedFloat) -> Expression:
    """The expression of a number: its own, or that of a literal."""
    return value.expression if isinstance(value, SizedInt | SizedFloat) else int(value)


def leaves(expression: Expression) -> Iterator[Kept | AttributeValue]:
    """The shapes and attributes that an expression is made of."""
    if isinstance(expression, Combined):
        yield from leaves(expression.left)
        yield from leaves(expression.right)
    elif not isinstance(expression, int):
        yield expression


def evaluate(expression: Expression, of_leaf: Callable[[Kept | AttributeValue], int]) -> int:
    """The value of an expression, given that of its leaves; -1 where it has none."""
    if isinstance(expression, Combined):
        left = evaluate(expression.left, of_leaf)
        right = evaluate(expression.right, of_leaf)
        try:
            return expression.operation(left, right)
        except ZeroDivisionError:
            return -1
    return expression if isinstance(expression, int) else of_leaf(expression)


@contextmanager
def sized_attributes(model: nn.Module) -> Iterator[None]:
    """Let every integer attribute of a model's modules remember what it is, for a while."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    for module_name, module in model.named_modules():
        for name, value in list(vars(module).items()):
            sized = _sized(module_name, name, value)
            if sized is not None:
                before.append((vars(module), name, value))
                vars(module)[name] = sized
    try:
        yield
    finally:
        for attributes, name, value in before:
            attributes[name] = value


def _sized(module: str, name: str, value: Any) -> Any:
    if type(value) is int and value > 0 and not name.startswith("_"):
        return SizedInt(value, AttributeValue(module, name, None, value))
    if type(value) in (tuple, list) and value and all(type(item) is int for item in value):
        return type(value)(
            SizedInt(item, AttributeValue(module, name, index, item))
            for index, item in enumerate(value)
        )
    return None
