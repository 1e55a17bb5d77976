"""What a ranking decides: the channels that stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lcprune.errors import InputError

PLAN_SCHEMA = 1
"""The version of a plan's JSON."""


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
    family name, and ``cost`` what the cost model predicts, by resource name.
    """

    kept: Mapping[tuple[str, int], tuple[int, ...]]
    attributes: tuple[AttributeEdit, ...] = ()
    criterion: str | None = None
    compensation: str | None = None
    latent: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    cost: Mapping[str, int] = field(default_factory=dict)

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
        try:
            raw: Any = json.loads(text)
            if raw["schema"] != PLAN_SCHEMA:
                raise InputError(f"plan of schema {raw['schema']}, expected {PLAN_SCHEMA}")
            return Plan(
                kept={
                    (str(entry["tensor"]), int(entry["dim"])): tuple(map(int, entry["indices"]))
                    for entry in raw["kept"]
                },
                attributes=tuple(
                    AttributeEdit(str(m), str(n), None if i is None else int(i), int(v))
                    for m, n, i, v in raw["attributes"]
                ),
                criterion=raw["criterion"],
                compensation=raw["compensation"],
                latent={n: tuple(map(float, v)) for n, v in raw["latent"].items()},
                cost={str(n): int(v) for n, v in raw["cost"].items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a plan: {type(error).__name__}: {error}") from error
