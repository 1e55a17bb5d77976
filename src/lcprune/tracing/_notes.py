"""What rules and the model's own code say on the way, beside the labels of the channels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from lcprune.graph import FIXED
from lcprune.tracing._labels import LabelSpace
from lcprune.tracing._running import Running
from lcprune.tracing._sizes import (
    AttributeValue,
    Expression,
    Kept,
    SizedFloat,
    SizedInt,
    evaluate,
    expression_of,
    leaves,
)


@dataclass(frozen=True)
class Counted:
    """Multiply-adds: ``coefficient`` times the kept labels of every vector."""

    coefficient: int
    vectors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Sized:
    """A module's attribute that counts the labels of a vector."""

    module: str
    name: str
    index: int | None
    vector: Tensor


@dataclass(frozen=True)
class Required:
    """A size that code gives, ``provided``, and the labels that are there to fill it.

    ``compared`` is one that code only compares with their number.
    """

    provided: Expression
    labels: Tensor
    where: str
    why: str = "a size that is fixed in code"
    compared: bool = False

    @property
    def reason(self) -> str:
        return f"{self.why} at {self.where}"


@dataclass(frozen=True)
class Choice:
    """A view that cut channels into blocks: the module, and the places that can go one by one."""

    module: str
    labels: Tensor
    expression: Expression


@dataclass(frozen=True)
class Asked:
    """What the call that runs asks for in the model's own code.

    ``shape`` is that of the result where the call names it, ``sections`` the sizes of the parts
    that it splits into, ``sized`` all numbers that know where they come from, by value,
    ``amounts`` the paddings in order, ``values`` what numbers are computed of that take part in
    the values.
    """

    shape: tuple[int, ...] | None = None
    sections: tuple[int, ...] = ()
    sized: Mapping[float, SizedInt | SizedFloat] = field(default_factory=dict)
    chunk: bool = False
    amounts: tuple[int, ...] = ()
    values: tuple[Expression, ...] = ()

    def expression(self, size: float) -> Expression:
        """Where a number that this call was given comes from."""
        return expression_of(self.sized[size]) if size in self.sized else int(size)


class Notes:
    """Collects the notes of a run; ``asked`` is what the call that runs asks for.

    ``counting`` is whether this is the run whose multiply-adds and decisions count, ``constants``
    are attributes that take part in values, ``read`` all attributes that code reads.
    """

    def __init__(self, labels: LabelSpace, running: Running) -> None:
        self._labels = labels
        self._running = running
        self.counting = True
        self.asked = Asked()
        self.counted: list[Counted] = []
        self.sized: list[Sized] = []
        self.required: list[Required] = []
        self.constants: set[tuple[str, str, int | None]] = set()
        self.uncounted: dict[str, None] = {}
        self.decisions: dict[str, None] = {}
        self.scaled: set[str] = set()
        self.read: set[tuple[str, str]] = set()
        self._choices: list[Choice] = []
        self._used: list[Kept | AttributeValue] = []

    @property
    def scaled_by_width(self) -> set[str]:
        """Modules whose attention depends on the width of a head: whole heads can go there."""
        return self.scaled | {c.module for c in self._choices if self._is_used(c)}

    def _is_used(self, choice: Choice) -> bool:
        attributes = {leaf for leaf in self._used if isinstance(leaf, AttributeValue)}
        kept = [leaf.labels for leaf in self._used if isinstance(leaf, Kept)]
        if any(torch.equal(labels, choice.labels) for labels in kept):
            return True
        if isinstance(choice.expression, int):
            return False
        chosen = set(leaves(choice.expression))
        return bool(attributes & chosen) or any(
            torch.equal(labels, leaf.labels)
            for labels in kept
            for leaf in chosen
            if isinstance(leaf, Kept)
        )

    def choose(self, labels: Tensor, expression: Expression) -> None:
        """Note which places of a view that cuts channels into blocks can go one by one."""
        self._choices.append(Choice(self._running.name, labels, expression))

    def decision(self) -> None:
        """Note that the running module decides by data."""
        if self.counting:
            self.decisions[
                f"the control flow of {self._running.title} depends on data; followed along the "
                "path of the example input"
            ] = None

    def size_attribute(self, name: str, vector: Tensor, index: int | None = None) -> bool:
        """Note that an attribute of the running module counts ``vector``, if it has one."""
        # Not a property or what the class has, which can't be set.
        value = vars(self._running.module).get(name)
        if index is not None:
            entries = value if isinstance(value, tuple | list) else ()
            value = entries[index] if index < len(entries) else None
        # An attribute of that name with another value counts something else.
        if not isinstance(value, int) or value != vector.numel():
            return False
        self.sized.append(Sized(self._running.name, name, index, vector))
        return True

    def require(self, labels: Tensor, provided: Expression, where: str) -> None:
        """Note that code gives the size ``provided`` to something that ``labels`` must fill.

        An integer attribute of a module that is such a size follows the labels.
        """
        if isinstance(provided, Kept) and torch.equal(provided.labels, labels):
            return
        if isinstance(provided, int) and bool((labels == FIXED).all()):
            return
        self.required.append(Required(provided, labels, where))

    def use_value(self, number: float) -> None:
        """Note that a number takes part in the values: what it counts must not change."""
        if number in self.asked.sized:
            self.use(self.asked.expression(number))
        elif isinstance(number, float) and 0 < number < 0.5:
            self._use_share(number)

    def _use_share(self, number: float) -> None:
        """Python computes ``1.0 / size`` without asking the size: the scale of attention by heads.

        A float that the module keeps for itself is no such number.
        """
        name = self._running.name
        widths = {c.labels.numel() for c in self._choices if c.module == name}
        if any(math.isclose(number, width**power) for width in widths for power in (-1, -0.5)):
            kept = vars(self._running.module).values()
            if not any(isinstance(value, float) and value == number for value in kept):
                self.scaled.add(name)

    def use(self, expression: Expression) -> None:
        """Note that an expression takes part in the values: it must not change."""
        with _unseen():
            self._use(expression)

    def _use(self, expression: Expression) -> None:
        self._used.extend(leaves(expression))
        reason = f"a value that is computed from their number in {self._running.title}"
        if isinstance(expression, Kept):
            self._labels.pin(expression.labels, reason)
        elif isinstance(expression, AttributeValue):
            self.constants.add((expression.module, expression.name, expression.index))
        elif not isinstance(expression, int):
            value = evaluate(expression, _value)
            labels = torch.full((max(0, value),), FIXED, dtype=torch.int64, device="cpu")
            why = "a value that is computed from their number"
            self.required.append(Required(expression, labels, self._running.title, why))

    def compared(self, left: Expression, right: Expression) -> None:
        """Note that code goes on by two sizes being equal."""
        with _unseen():
            self._compared(left, right)

    def _compared(self, left: Expression, right: Expression) -> None:
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Kept) and not isinstance(other, int):
                if not (isinstance(other, Kept) and torch.equal(one.labels, other.labels)):
                    where = self._running.title
                    self.required.append(Required(other, one.labels, where, compared=True))
                return

    def attribute_read(self, attribute: AttributeValue) -> None:
        """Note that code reads an attribute, or an entry of it."""
        self.read.add((attribute.module, attribute.name))


@contextmanager
def _unseen() -> Iterator[None]:
    """A context for computing with labels in the midst of the model's code."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


def _value(leaf: Kept | AttributeValue) -> int:
    """What a leaf is in the whole network."""
    return leaf.labels.numel() if isinstance(leaf, Kept) else leaf.value
