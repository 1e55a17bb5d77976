"""What a ranking decides: the channels that stay."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lcprune._checks import LARGEST, refused
from lcprune._text import described, shown
from lcprune.errors import InputError

PLAN_SCHEMA = 1
"""The version of a plan's JSON."""

A_PLAN = "a Plan, such as lcprune.rank gives"
"""What was expected where a plan is not one."""

_DIMENSIONS = 64
"""More than any tensor has."""


@dataclass(frozen=True)
class AttributeEdit:
    """A module's attribute (or one entry of it) and the value that the plan gives it."""

    module: str
    name: str
    index: int | None
    value: int


@dataclass(frozen=True)
class Plan:
    """Which channels stay, and what must change with them; applying it needs no tracer.

    ``kept`` maps (tensor name, dimension) to the indices that stay, ascending; dimensions that
    lose nothing are absent. ``latent`` is the compensation (families x numbers per family) by
    family name, and ``cost`` what the cost model predicts, by resource name. ``network`` and
    ``result`` are the digests (``network_digest``) of the network that the plan is for and of
    what is left of it; empty, as in a plan made by hand, they are not checked. ``free_outputs``
    names the outputs that may shrink.

    ``InputError`` where a value can't be one of any network's plan; whether it fits one, ``slim``
    says.
    """

    kept: Mapping[tuple[str, int], tuple[int, ...]]
    attributes: tuple[AttributeEdit, ...] = ()
    criterion: str | None = None
    compensation: str | None = None
    latent: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    cost: Mapping[str, int] = field(default_factory=dict)
    network: str = ""
    result: str = ""
    free_outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", _checked_kept(self.kept))
        _check_attributes(self.attributes)
        _check_latent(self.latent)
        _check_cost(self.cost)
        for name in ("criterion", "compensation"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, str)):
                raise refused(f"the {name}", value, "a name or none")
        for name in ("network", "result"):
            digest = getattr(self, name)
            if not (isinstance(digest, str) and (not digest or _is_digest(digest))):
                raise refused(f"{name}", digest, "64 hexadecimal digits, or nothing")
        free = self.free_outputs
        if not (isinstance(free, tuple) and all(isinstance(name, str) for name in free)):
            raise refused("free_outputs", free, "a tuple of names of outputs")

    @property
    def digest(self) -> str:
        """A hash of what is kept: equal plans have equal digests, whatever led to them."""
        text = json.dumps(
            [[tensor, dim, list(self.kept[tensor, dim])] for tensor, dim in sorted(self.kept)]
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """The plan as JSON text; ``from_json`` reads it back unchanged."""
        return json.dumps(
            {
                "schema": PLAN_SCHEMA,
                "criterion": self.criterion,
                "compensation": self.compensation,
                "network": self.network,
                "result": self.result,
                "free_outputs": list(self.free_outputs),
                "cost": dict(self.cost),
                "latent": {name: list(values) for name, values in self.latent.items()},
                "attributes": [[a.module, a.name, a.index, a.value] for a in self.attributes],
                "kept": [
                    {"tensor": tensor, "dim": dim, "indices": list(indices)}
                    for (tensor, dim), indices in self.kept.items()
                ],
            },
            indent=1,
        )

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read a plan; ``InputError`` where the text is not one."""
        if not isinstance(text, str):
            raise refused("a plan's JSON", text, "text")
        try:
            raw: Any = json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
            if type(raw["schema"]) is not int or raw["schema"] != PLAN_SCHEMA:
                raise InputError(f"plan of schema {shown(raw['schema'])}, expected {PLAN_SCHEMA}")
            kept: dict[tuple[str, int], tuple[int, ...]] = {}
            for entry in _list("kept", raw["kept"]):
                key = (entry["tensor"], entry["dim"])
                if key in kept:
                    raise InputError(f"dimension {shown(key[1])} of {shown(key[0])} comes twice")
                kept[key] = tuple(_list("indices", entry["indices"]))
            plan = Plan(
                kept=kept,
                attributes=tuple(
                    AttributeEdit(module, name, index, value)
                    for module, name, index, value in _list("attributes", raw["attributes"])
                ),
                criterion=raw["criterion"],
                compensation=raw["compensation"],
                latent={name: tuple(_list(name, v)) for name, v in raw["latent"].items()},
                cost=raw["cost"],
                network=raw.get("network", ""),
                result=raw.get("result", ""),
                free_outputs=tuple(_list("free_outputs", raw.get("free_outputs", []))),
            )
            for (name, dim), indices in plan.kept.items():
                if not _ascending(indices):
                    raise InputError(
                        f"indices {_ends(indices)} of dimension {dim} of {shown(name)}, expected "
                        "ascending ones"
                    )
            return plan
        except InputError as error:
            raise InputError(f"not a plan: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise InputError(
                f"not a plan: expected the JSON that Plan.to_json gives ({described(error, 120)})"
            ) from error


def _checked_kept(kept: object) -> dict[tuple[str, int], tuple[int, ...]]:
    """The kept indices as tuples of plain integers."""
    if not isinstance(kept, Mapping):
        raise refused("kept", kept, "a dictionary from (tensor name, dimension) to indices")
    checked: dict[tuple[str, int], tuple[int, ...]] = {}
    known: dict[int, tuple[int, ...]] = {}  # the tensors of a layer share one tuple
    for key, indices in kept.items():
        if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str)):
            raise refused("a key of kept", key, "a pair (tensor name, dimension)")
        name, dim = key
        if type(dim) is not int or not 0 <= dim < _DIMENSIONS:
            raise InputError(
                f"the plan prunes dimension {shown(dim)} of {name}, expected one from 0"
            )
        if id(indices) not in known:
            known[id(indices)] = _indices(indices, name, dim)
        checked[name, dim] = known[id(indices)]
    return checked


def _indices(given: object, name: str, dim: int) -> tuple[int, ...]:
    indices = given
    if not isinstance(indices, tuple) or not set(map(type, indices)) <= {int}:
        try:
            if isinstance(indices, str | bytes | Mapping) or not isinstance(indices, Sequence):
                raise TypeError
            if any(isinstance(index, bool) for index in indices):
                raise TypeError
            indices = tuple(map(operator.index, indices))
        except TypeError:
            where = f"dimension {dim} of {name}"
            raise refused(f"the plan's indices of {where}", given, "integers") from None
    if not indices or min(indices) < 0 or max(indices) > LARGEST or not _distinct(indices):
        raise InputError(
            f"the plan keeps indices {_ends(indices)} of dimension {dim} of {name}, "
            "expected one or more from 0, within 64 bits, none twice"
        )
    return indices


def _ascending(indices: tuple[int, ...]) -> bool:
    return len(indices) == 1 or all(map(operator.lt, indices, indices[1:]))


def _distinct(indices: tuple[int, ...]) -> bool:
    # Another order is a plan too (a wrong one, which the oracle tells); in a file it is damage.
    return _ascending(indices) or len(set(indices)) == len(indices)


def _ends(indices: tuple[int, ...]) -> str:
    return "none" if not indices else f"{shown(indices[0])} … {shown(indices[-1])}"


def _check_attributes(attributes: object) -> None:
    if not isinstance(attributes, tuple):
        raise refused("attributes", attributes, "a tuple of AttributeEdit")
    seen: dict[tuple[str, str, int | None], int] = {}
    for edit in attributes:
        if not isinstance(edit, AttributeEdit):
            raise refused("an attribute's edit", edit, "an AttributeEdit")
        expected = _expected_of(edit)
        key = (edit.module, edit.name, edit.index)
        if not expected and seen.setdefault(key, edit.value) != edit.value:
            expected = f"one value, not {shown(seen[key])} as well"
        if expected:
            raise InputError(
                f"the plan sets {edit.name} of {edit.module}, entry {shown(edit.index)}, to "
                f"{shown(edit.value)}, expected {expected}"
            )


def _expected_of(edit: AttributeEdit) -> str:
    """What was expected of an edit in place of what it is; nothing where it can be one."""
    if not (isinstance(edit.module, str) and isinstance(edit.name, str)):
        return "names of a module and an attribute"
    if not edit.name.isidentifier() or edit.name.startswith("__"):
        return "the name of a size"
    if not (edit.index is None or (type(edit.index) is int and 0 <= edit.index <= LARGEST)):
        return "the position of an entry, from 0, or none"
    if type(edit.value) is not int or not 0 <= edit.value <= LARGEST:
        return "a number from 0, within 64 bits"
    return ""


def _check_latent(latent: object) -> None:
    if not isinstance(latent, Mapping):
        raise refused("the latent", latent, "a dictionary from families to tuples of numbers")
    for name, values in latent.items():
        if not (
            isinstance(name, str) and isinstance(values, tuple) and all(map(_is_number, values))
        ):
            raise refused(f"the latent of {name}", values, "a tuple of finite numbers")


def _check_cost(cost: object) -> None:
    if not isinstance(cost, Mapping):
        raise refused("the cost", cost, "a dictionary from resources to numbers")
    for name, value in cost.items():
        if not (isinstance(name, str) and type(value) is int and 0 <= value <= LARGEST):
            raise refused(f"the cost in {name}", value, "a number from 0, within 64 bits")


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is int and abs(value) <= LARGEST


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise refused(name, value, "a list")
    return value


def _no_number(text: str) -> float:
    raise InputError(f"it holds {text}, expected finite numbers")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys must differ."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InputError("it has an entry twice")
    return found
