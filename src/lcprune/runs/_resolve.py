"""Values from a command line, a file and defaults become a configuration."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lcprune.errors import InputError

_TEXTS = {"budget": "macs=50%", "skip_types": "Linear"}


class Checked(Protocol):
    """A dataclass that knows the ranges of its values."""

    def check(self) -> None: ...


Config = TypeVar("Config", bound=Checked)


def resolve_as(
    kind: type[Config],
    given: Mapping[str, Any],
    *,
    file: Path | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration that results from a command line, a file and defaults.

    ``given`` holds what the command line says, none where it says nothing; ``defaults`` goes
    over the built-in ones. ``InputError`` for an unknown key, a value of the wrong type or out
    of its range, and where something that has no default is absent.
    """
    values = dict(defaults or {})
    values |= _read_file(file) if file is not None else {}
    values |= {key: value for key, value in given.items() if value is not None}
    config = kind(**_typed(kind, values, file))
    config.check()
    return config


def _read_file(path: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror or error}") from error
    except ValueError as error:  # TOML that is wrong, or bytes that are not text
        raise InputError(f"{path} is not TOML: {error}") from error
    return {key.replace("-", "_"): value for key, value in raw.items()}


def _typed(kind: Any, values: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    known = {field.name: field.type for field in fields(kind)}
    typed = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise InputError(f"unknown key {key!r}{f' in {file}' if file else ''}: {hint}")
        typed[key] = _convert(key, value, str(known[key]))
    return typed


def _convert(key: str, value: Any, kind: str) -> Any:
    if kind == "tuple[str, ...]":
        if isinstance(value, Mapping) and key == "budget":
            return tuple(f"{name}={bound}" for name, bound in value.items())
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list | tuple) and all(isinstance(item, str) for item in values):
            return tuple(values)
    elif kind.endswith("| None") and value is None:
        return None
    elif kind.startswith("bool") or isinstance(value, bool):
        if kind.startswith("bool") and isinstance(value, bool):
            return value
    elif kind.startswith("float") and isinstance(value, int | float):
        return float(value)
    elif kind == "float | str" and isinstance(value, str):
        return _number_if_it_is_one(value)
    elif (kind.startswith("int") and isinstance(value, int)) or (
        kind == "str" and isinstance(value, str)
    ):
        return value
    expected = "a number" if kind == "float | str" else kind
    if kind == "tuple[str, ...]":
        expected = f"text such as {_TEXTS.get(key, 'layer1*')!r}, or a list of it"
    raise InputError(f"{key} = {value!r}: expected {expected.removesuffix(' | None')}")


def _number_if_it_is_one(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
