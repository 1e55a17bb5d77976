"""Types and ranges of what is given to public functions: a wrong one is told in one line.

Each check gives the value back in the type that was asked for, and raises ``InputError`` (or the
``error`` given, a kind of it) in the form "NAME is VALUE, expected …".
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lcprune._text import described, shown
from lcprune.errors import InputError, LcpruneError, ModelError

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

LARGEST = 2**63 - 1
"""The largest integer that everything which stores one can hold."""


def refused(
    name: str, value: object, expected: str, error: type[InputError] = InputError
) -> InputError:
    """The error to raise: "NAME is VALUE, expected ``expected``"."""
    return error(f"{name} is {shown(value)}, expected {expected}")


def instance(
    name: str,
    value: object,
    kind: type[T] | tuple[type[T], ...],
    expected: str = "",
    error: type[InputError] = InputError,
) -> T:
    """``value``, which must be a ``kind``; ``expected`` says it in words ("a torch.nn.Module")."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        words = expected or " or ".join(known.__name__ for known in kinds)
        raise refused(name, value, words, error)
    return value


def module(name: str, value: object, error: type[InputError] = InputError) -> nn.Module:
    """A ``torch.nn.Module``, of which no module is a part of itself."""
    from torch import nn  # here, since whoever only checks a number needs none of it

    model = instance(name, value, nn.Module, "a torch.nn.Module", error)
    whole: set[nn.Module] = set()

    def visit(part: nn.Module, around: tuple[nn.Module, ...]) -> None:
        if part in around:
            raise error(f"{name} has a module that is a part of itself, expected a tree of them")
        if part not in whole:
            for child in part.children():
                visit(child, (*around, part))
            whole.add(part)

    visit(model, ())
    return model


def integer(
    name: str,
    value: object,
    least: int = -LARGEST - 1,
    most: int = LARGEST,
    error: type[InputError] = InputError,
) -> int:
    """An integer (a NumPy one too, no boolean) from ``least`` to ``most``, within 64 bits."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        found = int(value)
        if least <= found <= most:
            return found
        value = found
    bits = " within 64 bits" if isinstance(value, int) and abs(value) > LARGEST else ""
    raise refused(name, value, f"an integer{_between(least, most)}{bits}", error)


def number(
    name: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
    more_than: float = -math.inf,
    less_than: float = math.inf,
    error: type[InputError] = InputError,
) -> float:
    """A finite number (no boolean) within the bounds, as a float."""
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:  # an integer of hundreds of digits
            found = math.inf
        if math.isfinite(found) and least <= found <= most and more_than < found < less_than:
            return found
        value = value if isinstance(value, int) else found
    open_bounds = [f"more than {more_than:g}"] if more_than > -math.inf else []
    open_bounds += [f"less than {less_than:g}"] if less_than < math.inf else []
    words = _between(least, most) + (f" {' and '.join(open_bounds)}" if open_bounds else "")
    raise refused(name, value, f"a finite number{words}", error)


def choice(
    name: str, value: object, known: Iterable[str], error: type[InputError] = InputError
) -> str:
    """One of the names that are ``known``."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise refused(name, value, f"one of {', '.join(names)}", error)
    return value


def path(
    name: str, value: object, error: type[InputError] = InputError, *, of_file: bool = False
) -> Path:
    """A ``str`` or ``os.PathLike`` of text as a ``Path``; ``~`` stands for a home that there is.

    That ``of_file`` has a last part that can be a file's name, which ``/`` and ``..`` have not.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise refused(name, value, "a path (str or os.PathLike[str])", error)
    if not text or "\0" in text:
        raise refused(name, text, "a path", error)
    try:
        found = Path(text).expanduser()
    except (RuntimeError, KeyError):  # no such user, or a user without a home
        raise refused(name, text, "a path in a home that there is", error) from None
    if of_file and found.name in ("", ".."):
        raise refused(name, text, "the path of a file", error)
    return found


def function(name: str, value: T, error: type[InputError] = InputError) -> T:
    """Something that can be called."""
    if not isinstance(value, Callable):  # type: ignore[arg-type]
        raise refused(name, value, "a function", error)
    return value


def of_type(name: str, value: Any, hint: Any, error: type[InputError] = InputError) -> Any:
    """What was read from JSON as a type hint has it, whatever is in it checked.

    An object becomes a dataclass or a mapping, a list a sequence. Numbers are finite and integers
    within 64 bits. A union is one kind or none, or several plain ones; of ``Any`` nothing is
    looked at.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType and types.NoneType in inner:
        return None if value is None else of_type(name, value, inner[0], error)
    if origin is types.UnionType:
        for kind in inner:
            with suppress(error):
                return of_type(name, value, kind, error)
        raise refused(name, value, " or ".join(map(_in_words, inner)), error)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _dataclass(name, value, hint, error)
    if origin in (tuple, abc.Sequence) and isinstance(value, list):
        items = [of_type(f"{name}[{n}]", each, inner[0], error) for n, each in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin is abc.Mapping and isinstance(value, dict):
        return {key: of_type(f"{name}.{key}", value[key], inner[1], error) for key in value}
    if hint is int:
        return integer(name, value, error=error)
    if hint is float:
        return number(name, value, error=error)
    if hint is Any or (hint in (str, bool, types.NoneType) and type(value) is hint):
        return value
    raise refused(name, value, _in_words(hint), error)


def _dataclass(name: str, value: dict[str, Any], kind: Any, error: type[InputError]) -> Any:
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    for key, field in known.items():
        defaults = (field.default, field.default_factory)
        if key not in value and all(each is dataclasses.MISSING for each in defaults):
            raise error(f"{name}.{key} is missing")
    for key in value:
        if key not in known:
            raise error(f"{name}.{key} is unknown, expected {', '.join(known)}")
    try:
        return kind(**{k: of_type(f"{name}.{k}", value[k], hints[k], error) for k in value})
    except error:
        raise
    except InputError as caught:  # of its own checks
        raise error(f"{name}: {caught}") from caught


def _in_words(hint: Any) -> str:
    names = {int: "an integer", float: "a finite number", str: "text", bool: "true or false"}
    if hint in names:
        return names[hint]
    if hint is types.NoneType:
        return "null"
    return "a list" if typing.get_origin(hint) in (tuple, abc.Sequence) else "an object"


def is_iterable(value: object) -> bool:
    """Whether it yields something, and is no text, which yields characters."""
    if isinstance(value, str | bytes | type) or getattr(value, "ndim", 1) == 0:
        return False
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def finite_or_inf(name: str, value: object) -> float:
    """A loss: what ``name`` returned as a float, ``inf`` where that is not finite."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf
    except Exception as error:  # of somebody else's class
        raise InputError(f"{name} returned {shown(value)}, expected a number") from error
    return found if math.isfinite(found) else math.inf


@contextmanager
def told_in_one_line(what: str) -> Iterator[None]:
    """``ModelError`` "WHAT: …" for whatever a model or a loss of somebody else's raises within.

    Errors of ours pass, and so does a lack of memory on a device, which callers may answer with
    smaller batches.
    """
    try:
        yield
    except LcpruneError:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise ModelError(f"{what}: {described(error)}") from error


def _between(least: float, most: float) -> str:
    low, high = least > -LARGEST - 1, most < LARGEST
    if low and high:
        return f" from {least:g} to {most:g}"
    return f" of at least {least:g}" if low else f" of at most {most:g}" if high else ""
