"""One operation on its way through the flow, and what rules note about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lcprune.tracing._deciding import operands
from lcprune.tracing._sizes import Expression, SizedFloat, SizedInt, expression_of

if TYPE_CHECKING:
    from lcprune.tracing._flow import LabelFlow


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


class Call:
    """One operation on its way: what it is, what it gets, and the flow that it is part of."""

    def __init__(
        self,
        flow: LabelFlow,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.flow = flow
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self._tensors: list[Tensor] | None = None

    @property
    def name(self) -> str:
        return str(self.func.overloadpacket)

    @property
    def where(self) -> str:
        """The operation and the module that runs it, for a reason."""
        return f"{self.name} in {self.flow.place}"

    def tensors(self) -> list[Tensor]:
        """The operands: an operator takes tensors and lists of them, nothing deeper."""
        if self._tensors is None:
            self._tensors = list(operands((*self.args, *self.kwargs.values())))
        return self._tensors

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument of the operator's schema, given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def run(self, *args: Any) -> Any:
        """Run the operation, on ``args`` in place of its own positional arguments if given."""
        return self.func(*(args or self.args), **self.kwargs)


Rule = Callable[[Call], Any]
