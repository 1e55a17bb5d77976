"""Integers that remember where they come from: a tensor's shape, or a module's attribute.

A size in a model's code follows the channels when the code computes it from a shape, and can be
made to follow when it is a module's attribute; a literal can't. While a model is traced, shapes
and attributes are integers that carry an expression, so that the three can be told apart.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

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


class Watcher(Protocol):
    """Who is told what a model's code does with the numbers that remember where they come from."""

    def use(self, expression: Expression) -> None:
        """A value is computed of an expression, out of sight of PyTorch."""

    def compared(self, left: Expression, right: Expression) -> None:
        """Two expressions were found equal, and the code goes on by that."""

    def attribute_read(self, attribute: AttributeValue) -> None:
        """The code reads an attribute."""


_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def _used(expression: Expression) -> None:
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher.use(expression)


def plain(value: Any) -> Any:
    """A number without its expression."""
    return int(value) if isinstance(value, int) else float.__pos__(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Sized:
    """What sized integers and floats have in common."""

    expression: Expression

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        # What NumPy computes is a plain number.
        for value in inputs:
            if isinstance(value, _Sized):
                _used(value.expression)
        numbers = [plain(value) if isinstance(value, _Sized) else value for value in inputs]
        return getattr(ufunc, method)(*numbers, **options)


class SizedFloat(_Sized, float):
    """A float that was computed of a sized integer.

    Python does not ask a right operand that is an integer, so ``2.0 * size`` is a plain float.
    """

    def __new__(cls, value: float, expression: Expression) -> SizedFloat:
        self = super().__new__(cls, value)
        self.expression = expression
        return self

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (plain(self),)

    def __float__(self) -> float:
        _used(self.expression)
        return float.__pos__(self)

    def __neg__(self) -> SizedFloat:
        return SizedFloat(-plain(self), self.expression)


class SizedInt(_Sized, int):
    """An integer with the expression that it is the value of."""

    def __new__(cls, value: int, expression: Expression) -> SizedInt:
        self = super().__new__(cls, value)
        self.expression = expression
        return self

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)  # a copy of a model holds ordinary numbers

    def __float__(self) -> float:
        _used(self.expression)  # what ``math`` computes is a plain number
        return float(int(self))

    def __neg__(self) -> SizedInt:
        return SizedInt(-int(self), Combined(operator.sub, 0, self.expression))

    def __truediv__(self, other: Any) -> Any:
        if not _is_number(other):
            return NotImplemented
        return SizedFloat(int(self) / plain(other), _of_both(self, other))

    def __rtruediv__(self, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return SizedFloat(int(other) / int(self), _of_both(other, self))

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        if not _is_number(other):
            return NotImplemented
        value = pow(int(self), plain(other), modulo)
        if isinstance(value, int):
            return SizedInt(value, Combined(operator.pow, self.expression, int(other)))
        return SizedFloat(float(value), _of_both(self, other))

    def __eq__(self, other: object) -> bool:
        equal = int.__eq__(self, other)
        if equal is True and isinstance(other, SizedInt):
            watcher = _WATCHER.get()
            if watcher is not None:
                watcher.compared(self.expression, other.expression)
        return equal

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = int.__hash__


def _of_both(left: Any, right: Any) -> Expression:
    """What a float is computed of: where one side is a literal, it follows the other."""
    known = [value.expression for value in (left, right) if isinstance(value, _Sized)]
    return known[0] if len(known) == 1 else Combined(operator.mul, known[0], known[1])


def _forward(operation: Callable[[Any, Any], Any]) -> Callable[[SizedInt, Any], Any]:
    def apply(self: SizedInt, other: Any) -> Any:
        if isinstance(other, float):
            return SizedFloat(operation(int(self), plain(other)), _of_both(self, other))
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


def _of_floats(
    operation: Callable[[Any, Any], Any], *, reverse: bool
) -> Callable[[SizedFloat, Any], Any]:
    def apply(self: SizedFloat, other: Any, *_: Any) -> Any:
        if not _is_number(other):
            return NotImplemented
        left, right = (other, self) if reverse else (self, other)
        value = operation(plain(left), plain(right))
        if not isinstance(value, float):
            return value
        return SizedFloat(value, _of_both(left, right))

    return apply


for _operation in (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod):
    setattr(SizedInt, f"__{_operation.__name__}__", _forward(_operation))
    setattr(SizedInt, f"__r{_operation.__name__}__", _backward(_operation))
for _operation in (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow):
    setattr(SizedFloat, f"__{_operation.__name__}__", _of_floats(_operation, reverse=False))
    setattr(SizedFloat, f"__r{_operation.__name__}__", _of_floats(_operation, reverse=True))


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
def sized_attributes(model: nn.Module, watcher: Watcher | None = None) -> Iterator[None]:
    """Let every integer attribute of a model's modules remember what it is, for a while.

    ``watcher`` is told what the code does with them, and which it reads.
    """
    before: list[tuple[dict[str, Any], str, Any]] = []
    kinds: list[tuple[nn.Module, type]] = []
    watched: dict[type, type] = {}
    token = _WATCHER.set(watcher)
    try:
        for module_name, module in model.named_modules():
            known = len(before)
            for name, value in list(vars(module).items()):
                sized = _sized(module_name, name, value)
                if sized is not None:
                    before.append((vars(module), name, value))
                    vars(module)[name] = sized
            kind = type(module)
            if watcher is not None and len(before) > known and not _is_of_pytorch(kind):
                try:
                    if kind not in watched:
                        watched[kind] = _reading(kind, watcher)
                    module.__class__ = watched[kind]
                    kinds.append((module, kind))
                except Exception:  # a class that can't be extended: it may read all that it has
                    for _, name, _ in before[known:]:
                        _tell_read(vars(module)[name], watcher)
        yield
    finally:
        for module, kind in kinds:
            module.__class__ = kind
        for attributes, name, value in before:
            attributes[name] = value
        _WATCHER.reset(token)


def _is_of_pytorch(kind: type) -> bool:
    """Whether the attributes of a class are what rules know."""
    return kind.__module__.startswith("torch.nn.")


def _reading(kind: type, watcher: Watcher) -> type:
    """A class like ``kind`` that tells ``watcher`` which sized attributes are read."""
    read: Any = kind.__getattribute__

    def get(self: Any, name: str) -> Any:
        value = read(self, name)
        _tell_read(value, watcher)
        return value

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind)(kind.__name__, (kind,), {**names, "__getattribute__": get})


def _tell_read(value: Any, watcher: Watcher) -> None:
    first = value[0] if type(value) in (tuple, list) and value else value
    if type(first) is SizedInt and isinstance(first.expression, AttributeValue):
        watcher.attribute_read(first.expression)


def _sized(module: str, name: str, value: Any) -> Any:
    if type(value) is int and value > 0 and not name.startswith("_"):
        return SizedInt(value, AttributeValue(module, name, None, value))
    if type(value) in (tuple, list) and value and all(type(item) is int for item in value):
        return type(value)(
            SizedInt(item, AttributeValue(module, name, index, item))
            for index, item in enumerate(value)
        )
    return None
