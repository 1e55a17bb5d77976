"""Rules: what an operator does to channels, registered by the operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from lcprune.errors import InputError
from lcprune.tracing._flow import Call

Rule = Callable[[Call], Any]
RULES: dict[Any, Rule] = {}
"""The rule of every operator, by its packet of overloads."""

LATER: dict[str, Rule] = {}
"""The rules of operators that come with a library that is not imported yet, by full name."""

Function = TypeVar("Function", bound=Rule)


def rule(*operators: Any, optional: Sequence[str] = ()) -> Callable[[Function], Function]:
    """Register the decorated function as the rule for operators; a later rule replaces one.

    An operator is a name (``"permute"`` for one of PyTorch's own, ``"mine::op"`` for another), or
    what ``torch.library.custom_op`` or ``torch.ops`` give. ``optional`` are names that not every
    version of PyTorch has, or that a library brings which may not be imported. The rule gets a
    ``Call`` and returns the operator's result. PyTorch takes some of its own apart before any rule
    is asked (``linear``, ``einsum``): what they are made of has the rules.

    Raises ``InputError`` for an operator that there isn't.

    Example:
        @rule("mine::shift")
        def shift(call: Call) -> Any:
            out = call.run()
            call.set(out, call.planes(call.args[0]))
            return out
    """
    packets = [_packet(operator) for operator in operators]
    packets += [packet for name in optional if (packet := _named(name)) is not None]
    later = [name for name in optional if "::" in name]

    def register(function: Function) -> Function:
        RULES.update(dict.fromkeys(packets, function))
        LATER.update(dict.fromkeys(later, function))
        return function

    return register


def rule_of(packet: Any) -> Rule | None:
    """The rule of an operator, by its packet of overloads; none where it has none."""
    return RULES.get(packet) or LATER.get(packet._qualified_op_name)


def _packet(operator: Any) -> Any:
    if isinstance(operator, torch._ops.OpOverload):
        return operator.overloadpacket
    if isinstance(operator, torch._ops.OpOverloadPacket):
        return operator
    name = operator if isinstance(operator, str) else getattr(operator, "_qualname", None)
    found = _named(name) if isinstance(name, str) else None
    if found is None:
        raise InputError(
            f"no operator {operator!r}, expected a name such as 'permute' or 'mine::op' of one "
            "that is registered, or the operator itself"
        )
    return found


def _named(name: str) -> Any:
    library, _, own = name.rpartition("::")
    return getattr(getattr(torch.ops, library or "aten"), own, None)
