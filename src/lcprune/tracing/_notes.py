"""What rules and the model's own code say on the way, beside the labels of the channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lcprune.graph import FIXED
from lcprune.tracing._labels import LabelSpace
from lcprune.tracing._running import Running
from lcprune.tracing._sizes import Expression, Kept, SizedFloat, SizedInt, expression_of, leaves


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
    """A size that code gives, ``provided``, and the labels that are there to fill it."""

    provided: Expression
    labels: Tensor
    where: str


@dataclass(frozen=True)
class Asked:
    """What the call that runs asks for in the model's own code.

    ``shape`` is that of the result where the call names it, ``sections`` the sizes of the parts
    that it splits into, ``sized`` all numbers that know where they come from, by value.
    """

    shape: tuple[int, ...] | None = None
    sections: tuple[int, ...] = ()
    sized: Mapping[float, SizedInt | SizedFloat] = field(default_factory=dict)
    chunk: bool = False

    def expression(self, size: float) -> Expression:
        """Where a number that this call was given comes from."""
        return expression_of(self.sized[size]) if size in self.sized else int(size)


class Notes:
    """Collects the notes of a run; ``asked`` is what the call that runs asks for.

    ``counting`` is whether this is the run whose multiply-adds and decisions count, ``constants``
    are attributes that take part in values, ``scaled_by_width`` modules whose attention is.
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
        self.scaled_by_width: set[str] = set()

    def decision(self) -> None:
        """Note that the running module decides by data."""
        if self.counting:
            self.decisions[
                f"the control flow of {self._running.title} depends on data; followed along the "
                "path of the example input"
            ] = None

    def size_attribute(self, name: str, vector: Tensor, index: int | None = None) -> bool:
        """Note that an attribute of the running module counts ``vector``, if it has one."""
        if name not in vars(self._running.module):  # a property, or of the class: it can't be set
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
        for leaf in leaves(self.asked.expression(number)) if number in self.asked.sized else ():
            if isinstance(leaf, Kept):
                reason = f"a value that is computed from their number in {self._running.title}"
                self._labels.pin(leaf.labels, reason)
            else:
                self.constants.add((leaf.module, leaf.name, leaf.index))
