"""User code by name: ``path/to/file.py:factory`` and ``package.module:factory``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from lcprune._checks import path as checked_path
from lcprune._text import described
from lcprune.errors import InputError, LcpruneError

FACTORY_MODULES = "_lcprune_factory_"
"""How the names of modules begin that were made of a file named by a user."""


def is_factory(spec: str) -> bool:
    """Whether ``spec`` reads as ``file.py:factory`` or ``package.module:factory``."""
    where, colon, name = spec.rpartition(":")
    if not colon or not name.isidentifier():
        return False
    return where.endswith(".py") or all(part.isidentifier() for part in where.split("."))


def call_factory(spec: str, error: type[InputError], **offered: Any) -> Any:
    """Import the factory that ``spec`` names and call it; the last colon splits.

    Of the keyword arguments offered the factory gets those that its signature names. The folder
    of the file, or the working directory for a module, can be imported from meanwhile. Whatever
    goes wrong is raised as ``error``, in one line.
    """
    where, _, name = spec.rpartition(":")
    try:
        module = _file_module(where, error) if where.endswith(".py") else _module(where)
        factory = getattr(module, name, None)
        if not callable(factory):
            raise error(f"{spec}: {where} has no function {name!r}")
        return factory(**_accepted(factory, offered))
    except LcpruneError:
        raise
    except (Exception, SystemExit) as caught:
        raise error(f"{spec}: {described(caught)}") from caught


def _module(name: str) -> ModuleType:
    with _importable(Path.cwd()):
        return importlib.import_module(name)


def _file_module(where: str, error: type[InputError]) -> ModuleType:
    path = checked_path("factory", where, error).resolve()
    if not path.is_file():
        raise error(f"{where}: no such file")
    name = f"{FACTORY_MODULES}{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"{where}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up while it is executed
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the code may have its own way with it
            sys.path.remove(str(folder))


def _accepted(factory: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some built-ins have no signature
        return {}
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in offered.items() if name in named}
