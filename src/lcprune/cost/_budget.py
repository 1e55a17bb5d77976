"""How much a network may cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from lcprune.errors import BudgetError

RESOURCES = ("macs", "params")
"""The resources that a budget can bound."""

_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_NUMBER = re.compile(r"(?P<number>(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?)\s*(?P<unit>[a-zA-Z%]*)")
_FORMS = "a fraction of the original (0.5 or 50%) or an absolute number (60M, 1.2G, 300k)"


@dataclass(frozen=True)
class Budget:
    """One or several upper bounds on a network's cost, all of which must hold.

    A bound is a fraction of the original's cost, as a float between 0 and 1 or text such as
    ``"50%"`` or ``"0.5"``, or an absolute number, as an int or text such as ``"60M"``,
    ``"1.2G"``, ``"300k"``. Raises ``BudgetError`` for anything else.
    """

    macs: float | int | str | None = None
    params: float | int | str | None = None

    def __post_init__(self) -> None:
        if not self._bounds():
            raise BudgetError(f"empty budget, expected a bound on {' or '.join(RESOURCES)}")
        for name, value in self._bounds().items():
            _read(name, value)

    @staticmethod
    def parse(bounds: Iterable[str]) -> Budget:
        """The budget that ``["macs=50%", "params=1M"]`` asks for."""
        read: dict[str, str] = {}
        for bound in bounds:
            name, equals, value = (part.strip() for part in bound.partition("="))
            if not equals:
                raise BudgetError(f"budget {bound!r}, expected NAME=BOUND such as macs=50%")
            if name not in RESOURCES:
                known = ", ".join(RESOURCES)
                raise BudgetError(f"budget on unknown resource {name!r}, expected one of {known}")
            if name in read:
                raise BudgetError(f"two bounds on {name}, expected one: {read[name]} or {value}")
            read[name] = value
        return Budget(**read)

    @property
    def asked(self) -> dict[str, str]:
        """The bounds as they were written, by resource name."""
        return {name: str(value) for name, value in self._bounds().items()}

    def limits(self, before: Mapping[str, int]) -> dict[str, int]:
        """Absolute bounds, rounded down, given the original's cost by resource name.

        Raises ``BudgetError`` for a bound that the original meets already.
        """
        limits: dict[str, int] = {}
        for name, value in self._bounds().items():
            number, is_fraction = _read(name, value)
            limit = number * before[name] if is_fraction else number
            if limit >= before[name]:
                raise BudgetError(
                    f"budget {name}={value} leaves nothing to prune: the network has"
                    f" {before[name]:,} {name}, expected a bound below that"
                )
            limits[name] = int(limit)
        return limits

    def _bounds(self) -> dict[str, float | int | str]:
        values = {name: getattr(self, name) for name in RESOURCES}
        return {name: value for name, value in values.items() if value is not None}


def _read(name: str, value: float | int | str) -> tuple[Fraction, bool]:
    """A bound as an exact number, and whether it is a fraction of the original."""
    asked = f"budget {name}={value}"
    # Through text, so that 0.29 is 29/100 and not the nearest binary fraction below it.
    match = _NUMBER.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        raise BudgetError(f"{asked} can't be read, expected {_FORMS}")
    number, unit = Fraction(match["number"]), match["unit"]
    if unit != "%" and unit not in _UNITS:
        raise BudgetError(f"{asked} has unknown unit {unit!r}, expected %, k, M, G or T")
    if number == 0:
        raise BudgetError(f"{asked} leaves nothing, expected {_FORMS}")
    if unit == "%":
        number /= 100
    written_as_part = isinstance(value, float) or "." in match["number"] or number < 1
    if unit == "%" or (unit == "" and written_as_part):
        if number >= 1:
            raise BudgetError(f"{asked} is not a part of the original, expected {_FORMS}")
        return number, True
    return Fraction(number * _UNITS[unit]), False
