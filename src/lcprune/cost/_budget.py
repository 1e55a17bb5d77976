"""How much a network may cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real

from lcprune._checks import LARGEST, instance, integer, is_iterable, refused
from lcprune._text import shortened, shown
from lcprune.cost._resources import RESOURCES, resource_named
from lcprune.errors import BudgetError

_COUNTS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9,
          "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}  # fmt: skip
_JOULES = {"pJ": 1, "nJ": 10**3, "uJ": 10**6, "mJ": 10**9, "J": 10**12}
_SECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_MEASURES = {
    "B": (_BYTES, "256KiB, 1.5MB, 4096B"),
    "pJ": (_JOULES, "3mJ, 250uJ"),
    "ns": (_SECONDS, "5ms, 800us"),
}
"""The units of what is no count, by that of a resource, and examples."""
_WITH_UNIT = ("pJ", "ns")
"""Of these a bare number means nothing."""
# An exact fraction of 1e999999999 would take all memory: numbers are as long as a float's are.
_NUMBER = re.compile(
    r"(?P<number>(\d{1,40}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,3})?)\s*(?P<unit>[a-zA-Z%]{0,9})",
    re.ASCII,
)

Bound = float | int | str


@dataclass(frozen=True, init=False)
class Budget:
    """One or several upper bounds on a network's cost, all of which must hold.

    A bound is a fraction of the original's cost, as a float between 0 and 1 or text such as
    ``"50%"`` or ``"0.5"``, or an absolute number: an int, or text such as ``"60M"``, ``"1.2G"``,
    ``"300k"`` for what is counted (``macs``, ``params``) and ``"256KiB"``, ``"1.5MB"``, ``"4096B"``
    for bytes (``weights``, ``activations``), or ``"3mJ"``, ``"250uJ"`` for ``energy`` and
    ``"5ms"``, ``"800us"`` for ``latency``, which always have a unit. Raises ``BudgetError`` for
    anything else.

    Example:
        Budget(macs=0.5, activations="256KiB")
    """

    bounds: tuple[tuple[str, Bound], ...]
    """Resource and bound, as they were given, in the order of ``RESOURCES``."""

    def __init__(self, **bounds: Bound | None) -> None:
        given = {name: value for name, value in bounds.items() if value is not None}
        for name, value in given.items():
            _read(name, value)
        if not given:
            raise BudgetError(f"empty budget, expected a bound on {' or '.join(RESOURCES)}")
        ordered = tuple((name, given[name]) for name in RESOURCES if name in given)
        object.__setattr__(self, "bounds", ordered)

    @staticmethod
    def parse(bounds: Iterable[str]) -> Budget:
        """The budget that ``["macs=50%", "activations=256KiB"]`` asks for."""
        if not isinstance(bounds, str) and not is_iterable(bounds):
            raise refused("bounds", bounds, "texts such as ['macs=50%']", BudgetError)
        read: dict[str, str] = {}
        for bound in [bounds] if isinstance(bounds, str) else bounds:
            if not isinstance(bound, str):
                raise BudgetError(f"a bound is {shown(bound)}, expected text such as macs=50%")
            name, equals, value = (part.strip() for part in bound.partition("="))
            if not equals:
                raise BudgetError(f"budget {bound!r}, expected NAME=BOUND such as macs=50%")
            if name in read:
                raise BudgetError(f"two bounds on {name}, expected one: {read[name]} or {value}")
            read[name] = value
        return Budget(**read)

    @property
    def asked(self) -> dict[str, str]:
        """The bounds as they were written, by resource name."""
        return {name: str(value) for name, value in self.bounds}

    def limits(self, before: Mapping[str, int]) -> dict[str, int]:
        """Absolute bounds, rounded down, given the original's cost by resource name.

        Raises ``BudgetError`` for a bound that the original meets already.
        """
        instance("before", before, Mapping, "costs such as {'macs': 41000000}", BudgetError)
        limits: dict[str, int] = {}
        for name, value in self.bounds:
            number, is_fraction = _read(name, value)
            whole = integer(f"the {name} before", before.get(name), 0, error=BudgetError)
            limit = number * whole if is_fraction else number
            if limit >= whole:
                unit = RESOURCES[name].unit
                what = f"{unit} of {name}" if unit in _MEASURES else name
                other = " or none on it" if len(self.bounds) > 1 else ""
                raise BudgetError(
                    f"budget {name}={value} leaves nothing to prune: the network has"
                    f" {whole:,} {what}, expected a bound below that{other}"
                )
            limits[name] = int(limit)
        return limits


def _read(name: str, value: Bound) -> tuple[Fraction, bool]:
    """A bound as an exact number, and whether it is a fraction of the original."""
    own_unit = resource_named(name).unit
    units, absolute = _MEASURES.get(own_unit, (_COUNTS, "60M, 1.2G, 300k"))
    forms = f"a fraction of the original (0.5 or 50%) or an absolute number ({absolute})"
    beyond = isinstance(value, Integral) and abs(value) > LARGEST
    if beyond or not isinstance(value, str | Real) or isinstance(value, bool):
        raise BudgetError(f"budget {name}={shown(value)}, expected {forms}")
    asked = f"budget {name}={shortened(str(value), 60)}"
    # Through text, so that 0.29 is 29/100 and not the nearest binary fraction below it.
    match = _NUMBER.fullmatch(str(value).strip())
    if match is None:
        raise BudgetError(f"{asked} can't be read, expected {forms}")
    number, unit = Fraction(match["number"]), match["unit"]
    if unit not in ("", "%") and unit not in units:
        known = ", ".join(unit for unit in units if unit != "K")
        raise BudgetError(f"{asked} has unknown unit {unit!r}, expected % or one of {known}")
    if number == 0:
        raise BudgetError(f"{asked} leaves nothing, expected {forms}")
    if unit == "%":
        number /= 100
    written_as_part = isinstance(value, float) or "." in match["number"] or number < 1
    if unit == "%" or (unit == "" and written_as_part):
        if number >= 1:
            raise BudgetError(f"{asked} is not a part of the original, expected {forms}")
        return number, True
    if unit == "" and own_unit in _WITH_UNIT:
        raise BudgetError(f"{asked} has no unit, expected {forms}")
    return number * units.get(unit, 1), False
