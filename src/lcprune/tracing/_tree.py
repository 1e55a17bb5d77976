"""Tensors in containers of any kind: found with the name of their place, and changed in a copy."""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any, cast

from torch import Tensor, nn

from lcprune._text import described
from lcprune.errors import InputError

PLAIN = frozenset({dict, OrderedDict, list, tuple, set, frozenset, deque})
"""Containers that are made anew of their items; of all others a copy gets other attributes."""

OPAQUE = (int, float, str, bytes, type, nn.Module, ModuleType, FunctionType, MethodType)
"""What is never looked into."""


def named_tensors(value: Any) -> list[tuple[str, Tensor]]:
    """Every tensor in containers, mappings, dataclasses and other objects, by name, in order.

    A name is made of positions, keys and fields, with dots between; it is empty where ``value`` is
    itself a tensor.
    """
    return list(_walk(value, "", set()))


def _walk(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    for key, part in _parts(value):
        yield from _walk(part, f"{name}.{key}" if name else str(key), seen)


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return zip(value._fields, value, strict=True)
    if isinstance(value, list | tuple | set | frozenset | deque):
        return enumerate(value)
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, OPAQUE):
        return ()
    return _attributes(value).items()


def _attributes(value: Any) -> Mapping[str, Any]:
    """The attributes of an object, in its dictionary and in slots."""
    slots: list[str] = []
    for kind in type(value).__mro__:
        own = kind.__dict__.get("__slots__", ())
        slots += [own] if isinstance(own, str) else [n for n in own if not n.startswith("__")]
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return held | cast("dict[str, Any]", getattr(value, "__dict__", {}))


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with every tensor changed, each once; nothing of ``value`` itself is touched.

    What holds no tensor is handed on as it is. ``InputError`` for an object with tensors that
    can't be copied.
    """
    return _mapped(value, change, {})


def _mapped(value: Any, change: Callable[[Tensor], Tensor], done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, Tensor):
        done[id(value)] = change(value)
        return done[id(value)]
    if isinstance(value, OPAQUE):
        return value
    done[id(value)] = value
    done[id(value)] = _rebuilt(value, lambda part: _mapped(part, change, done))
    return done[id(value)]


def _rebuilt(value: Any, changed: Callable[[Any], Any]) -> Any:
    kind = type(value)
    items = list(value.items()) if isinstance(value, dict) else []
    if not items and isinstance(value, list | tuple | set | frozenset | deque):
        items = list(enumerate(value))
    parts = {key: new for key, old in items if (new := changed(old)) is not old}
    if kind in PLAIN or (isinstance(value, tuple) and hasattr(value, "_fields")):
        whole = [(key, parts.get(key, old)) for key, old in items]
        if not parts:
            return value
        if isinstance(value, dict):
            return kind(whole)
        return getattr(kind, "_make", kind)([part for _, part in whole])
    attributes = {
        name: new
        for name, old in _attributes(value).items()
        if (new := changed(old)) is not old
    }  # fmt: skip
    if not parts and not attributes:
        return value
    try:
        made = copy.copy(value)
        for key, part in parts.items():
            (dict if isinstance(value, dict) else list).__setitem__(made, key, part)
        for name, part in attributes.items():
            object.__setattr__(made, name, part)
    except Exception as error:
        raise InputError(
            f"a {kind.__module__}.{kind.__qualname__} among the inputs can't be copied "
            f"({described(error)}); expected an object that copy.copy accepts"
        ) from error
    return made
