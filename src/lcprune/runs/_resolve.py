"""An option as a field of a frozen dataclass, which says everything about it once.

From the fields come the command line, its help, the keys of a configuration file, the checks of a
value wherever it comes from, and the page of options. Nothing here imports PyTorch.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import operator
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from lcprune._checks import LARGEST, path
from lcprune._files import read_toml
from lcprune._text import shown
from lcprune.errors import InputError

T = TypeVar("T")
_BOUNDS = {
    "at_least": operator.ge,
    "more_than": operator.gt,
    "at_most": operator.le,
    "less_than": operator.lt,
}


@dataclass(frozen=True)
class Details:
    """What a field says of its option besides type and default.

    ``name`` is what the command line calls it where that is not the field's name, ``metavar`` a
    word for its value, ``also`` holds values that are fine outside of the range, ``unset`` says
    what none stands for. ``missing`` is what an error suggests where there is no default, and
    ``example`` a text of its kind. A ``flag`` can only be switched on; ``positional`` options come
    without a name.
    """

    help: str
    name: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    more_than: float | None = None
    at_most: float | None = None
    less_than: float | None = None
    also: tuple[float | str, ...] = ()
    unset: str = ""
    missing: str = ""
    example: str = "layer1*"
    flag: bool = False
    positional: bool = False

    @property
    def bounds(self) -> list[tuple[str, float]]:
        """The bounds that there are, by their name here."""
        found = [(name, getattr(self, name)) for name in _BOUNDS]
        return [(name, bound) for name, bound in found if bound is not None]

    @property
    def range(self) -> str:
        """The range in words: ``at least 1``, ``0, or at least 2``; empty where all is fine."""
        bounds = " and ".join(
            f"{name.replace('_', ' ')} {_plain(bound)}" for name, bound in self.bounds
        )
        numbers = [f"{value:g}" for value in self.also if not isinstance(value, str)]
        words = [value for value in self.also if isinstance(value, str)]
        return ", or ".join([*numbers, bounds or ", ".join(self.choices), *words])

    def holds(self, value: float | str) -> bool:
        """Whether a value of the right type is one of the choices, or in the range."""
        if isinstance(value, str):
            return value in (*self.choices, *self.also) or not (self.choices or self.also)
        return value in self.also or all(_BOUNDS[name](value, bound) for name, bound in self.bounds)


def _joined(bound: object) -> object:
    """Several bounds in a list as one text has them."""
    return ",".join(map(str, bound)) if isinstance(bound, list) else bound


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def option(default: T, help: str, **details: Any) -> T:
    """A field of an option, with what ``Details`` takes."""
    return field(default=default, metadata={"option": Details(help, **details)})


def required(help: str, **details: Any) -> Any:
    """A field of an option that has no default."""
    return field(metadata={"option": Details(help, **details)})


def redefault(kind: type[Concern], name: str, default: Any = MISSING) -> Any:
    """The field of another class with another default, or with none."""
    (known,) = (one for one in dataclasses.fields(kind) if one.name == name)
    return field(default=default, metadata=known.metadata)


@dataclass(frozen=True)
class Option:
    """An option of a command: ``key`` in files and code, ``title`` of the concern it belongs to."""

    key: str
    types: frozenset[type]
    default: Any
    title: str
    details: Details

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def names(self) -> tuple[str, ...]:
        """What the command line calls it, with ``--no-…`` where it can be switched off."""
        if self.details.positional:
            return ()
        name = self.details.name or self.key.replace("_", "-")
        off = bool in self.types and not self.details.flag
        return (f"--{name}", f"--no-{name}") if off else (f"--{name}",)

    @property
    def shown_default(self) -> str:
        """The default in words; empty where there is none."""
        if self.required or self.details.flag or self.default is None:
            return self.details.unset
        if isinstance(self.default, bool):
            return "yes" if self.default else "no"
        return str(self.default) if self.default != () else self.details.unset

    def parse(self, text: str) -> Any:
        """The value that a text on a command line stands for, checked."""
        for kind in (int, float):
            if kind in self.types:
                try:
                    return self.check(kind(text))
                except ValueError:
                    continue
        return self.check([text] if tuple in self.types else text)

    def check(self, value: Any) -> Any:
        """The value as the field holds it. ``InputError`` for a wrong type or out of range."""
        checked = self._typed(value)
        if isinstance(checked, str | int | float) and not isinstance(checked, bool):
            if isinstance(checked, int) and abs(checked) > LARGEST:
                raise self._refused(value, "an integer of at most 64 bits")
            if isinstance(checked, float) and not math.isfinite(checked):
                finite = f"a finite number, {self.details.range}".removesuffix(", ")
                raise self._refused(value, finite)
            if not self.details.holds(checked):
                word = isinstance(checked, str) and int in self.types
                raise self._refused(value, self._type_in_words() if word else self.details.range)
        if checked in ("", ()) and self.required:
            raise self.absent()
        return checked

    def absent(self) -> InputError:
        """The error where nothing says what has no default."""
        return InputError(f"no {self.key} given, expected for example {self.details.missing}")

    def _typed(self, value: Any) -> Any:
        if value is None and types.NoneType in self.types:
            return None
        if tuple in self.types:
            if isinstance(value, Mapping) and "=" in self.details.example:
                return tuple(f"{name}={_joined(bound)}" for name, bound in value.items())
            values = [value] if isinstance(value, str) else value
            if isinstance(values, list | tuple) and all(isinstance(item, str) for item in values):
                return tuple(values)
        elif isinstance(value, bool):
            if bool in self.types:
                return value
        elif isinstance(value, Integral) and int in self.types:
            return int(value)
        elif isinstance(value, Real) and float in self.types:
            with suppress(OverflowError):
                return float(value)
        elif isinstance(value, str) and str in self.types:
            with suppress(ValueError):
                return float(value) if float in self.types else value
            return value
        elif isinstance(value, str | Path) and Path in self.types and str(value):
            return path(self.key, value)
        raise self._refused(value, self._type_in_words())

    def _type_in_words(self) -> str:
        if tuple in self.types:
            return f"text such as {self.details.example!r}, or a list of it"
        if str in self.types and self.types & {int, float}:
            return f"{'an integer, ' if int in self.types else ''}{self.details.range}"
        words = {bool: "true or false", int: "an integer", float: "a number", Path: "a path"}
        return next((words[kind] for kind in words if kind in self.types), "text")

    def _refused(self, value: Any, expected: str) -> InputError:
        return InputError(f"{self.key} = {shown(value)}: expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Concern:
    """A frozen dataclass of options, which checks its values; ``title`` heads them in the help."""

    title: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for key, known in options_of(type(self)).items():
            object.__setattr__(self, key, known.check(getattr(self, key)))

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str = "") -> Self:
        """From values by key. ``InputError`` also for an unknown key and for an absent one."""
        known = options_of(cls)
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
                raise InputError(f"unknown key {key!r}{source}: {hint}")
        for key, one in known.items():
            if one.required and key not in values:
                raise one.absent()
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """The values in JSON's types, in the order of the fields."""
        values = {key: getattr(self, key) for key in options_of(type(self))}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def options_of(kind: type[Concern]) -> Mapping[str, Option]:
    """The options of a class by key, in the order of its fields."""
    hashable: Any = kind  # as every class is: mypy takes the hash of its instances
    return _options_of(hashable)


@functools.cache
def _options_of(kind: Any) -> Mapping[str, Option]:
    hints = typing.get_type_hints(kind)
    return {
        known.name: Option(
            known.name,
            _types(hints[known.name]),
            known.default,
            _first_with(kind, known.name).title,
            known.metadata["option"],
        )
        for known in dataclasses.fields(kind)
    }


def _types(hint: Any) -> frozenset[type]:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return frozenset(typing.get_origin(member) or member for member in members)


def _first_with(kind: type[Concern], name: str) -> type[Concern]:
    """The class that brought a field in: what it is about, whoever has another default for it."""
    lineage = (base for base in reversed(kind.__mro__) if issubclass(base, Concern))
    return next(base for base in lineage if name in {f.name for f in dataclasses.fields(base)})


C = TypeVar("C", bound=Concern)


def resolve(
    kind: type[C],
    given: Mapping[str, Any],
    *,
    file: Path | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> C:
    """The configuration that results from a command line, a file and defaults.

    ``given`` holds what the command line says, none where it says nothing; ``defaults`` goes
    over the built-in ones. ``InputError`` for an unknown key, a value of the wrong type or out
    of its range, and where something that has no default is absent.
    """
    values = dict(defaults or {})
    values |= read_config(file) if file is not None else {}
    values |= {key: value for key, value in given.items() if value is not None}
    return kind.of(values, f" in {file}" if file else "")


def read_config(path: Path) -> dict[str, Any]:
    """The values in a configuration file by key; ``InputError`` where it is not TOML."""
    return read_toml(path)
