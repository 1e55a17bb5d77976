"""Plain docstrings as reStructuredText, and public names in place of private ones.

Docstrings are written to be read in the source: code is indented, names stand in double
backticks. Here the code becomes literal blocks, and the names of public things become links.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

STAGES = (
    "graph",
    "tracing",
    "cost",
    "criteria",
    "ranking",
    "slimming",
    "fitness",
    "searching",
    "training",
    "artifact",
    "engines",
    "data",
    "models",
    "testing",
)
"""The packages that have a page each, in the order of the data's way."""

_CODE_IN_TEXT = re.compile(r"``([^`]+)``")


def literal_blocks(lines: list[str]) -> list[str]:
    """Mark indented code as such; lists and their continuation lines stay what they are.

    Code is what follows an empty line, or one that ends in a colon, and is indented further; it
    goes on until something is not.
    """
    found: list[str] = []
    text = 0  # the indentation of the text around
    code = False
    for line in lines:
        before = found[-1] if found else ""
        if line.strip():
            indent = len(line) - len(line.lstrip())
            if indent <= text:
                text, code = indent, False
            elif not code and not before.strip():
                found += ["::", ""]
                code = True
            elif not code and before.endswith(":"):
                found[-1] += ":"
                found.append("")
                code = True
        found.append(line)
    return found


def public_names() -> dict[str, str]:
    """Where each public thing is documented, by every name that it is found under.

    Keys are the full name of its definition (``lcprune.graph._graph.ChannelGraph``) and of
    each re-export (``lcprune.ChannelGraph``); a bare name is one where it is unambiguous.
    """
    homes: dict[str, str] = {}
    bare: dict[str, set[str]] = {}
    top = importlib.import_module("lcprune")
    for module in (*(f"lcprune.{stage}" for stage in STAGES), "lcprune.errors"):
        package = importlib.import_module(module)
        for name in getattr(package, "__all__", None) or _own_names(package):
            thing, home = getattr(package, name), f"{module}.{name}"
            if inspect.isclass(thing) or inspect.isfunction(thing):
                homes.setdefault(f"{thing.__module__}.{thing.__qualname__}", home)
            if getattr(top, name, None) is thing:
                homes[f"lcprune.{name}"] = home
            homes[home] = home
            bare.setdefault(name, set()).add(homes.get(_definition(thing), home))
    return homes | {name: places.pop() for name, places in bare.items() if len(places) == 1}


def _own_names(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    ]


def _definition(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"


def linked(line: str, names: Mapping[str, str], own: set[str]) -> str:
    """Turn public names in double backticks into links, those in ``own`` (parameters) not."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        home = None if name in own else names.get(name.removeprefix("lcprune."))
        return match[0] if home is None else f":py:obj:`{name} <{home}>`"

    return _CODE_IN_TEXT.sub(link, line)


def starred(line: str) -> str:
    """Keep the star of a path (``train/CLASS/*``) from beginning an emphasis."""
    parts = line.split("``")
    return "``".join(p if i % 2 else p.replace("/*", "/\\*") for i, p in enumerate(parts))


def plain_signature(text: str) -> str:
    """A signature without the traces of how it was made; full names are shown by their last part.

    Defaults of dataclass fields that a function makes are dots, aliases stand for themselves.
    """
    text = re.sub(r"TypeAliasForwardRef\('([^']+)'\)", r"\1", text.replace("<factory>", "..."))
    return re.sub(r"(?<![\w.~'\"])((?:lcprune|numpy)(?:\.\w+)+)", r"~\1", text)


class _Docstrings:
    def __init__(self) -> None:
        self.names = public_names()

    def process(
        self, app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
    ) -> None:
        own = {name.rpartition(".")[2]}
        if callable(obj):
            with contextlib.suppress(TypeError, ValueError):
                own |= set(inspect.signature(obj).parameters)
        lines[:] = literal_blocks([starred(linked(line, self.names, own)) for line in lines])

    def skip(
        self, app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any
    ) -> bool | None:
        """What a protocol asks for is listed, with a docstring or without."""
        if what != "class" or not inspect.isfunction(obj):
            return None
        if name.startswith("_") and name != "__call__":
            return None
        owner = getattr(sys.modules[obj.__module__], obj.__qualname__.partition(".")[0], None)
        return False if getattr(owner, "_is_protocol", False) else None

    def sign(
        self,
        app: Sphinx,
        what: str,
        name: str,
        obj: Any,
        options: Any,
        arguments: str | None,
        returns: str | None,
    ) -> tuple[str, str | None] | None:
        if getattr(obj, "_is_protocol", False):
            return "", None  # a protocol is not called
        if arguments is None:
            return None
        return plain_signature(arguments), returns and plain_signature(returns)

    def resolve(
        self, app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
    ) -> nodes.Element | None:
        home = self.names.get(node.get("reftarget", ""))
        if node.get("refdomain") != "py" or home is None:
            return None
        domain = env.get_domain("py")
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, content)


def _describe_constants(package: str) -> None:
    """Tell autodoc the texts of a package's constants, which only their own modules know."""
    public = importlib.import_module(package)
    known = ModuleAnalyzer.for_module(package)
    known.analyze()
    for name in public.__all__:
        if not isinstance(getattr(public, name), (type, FunctionType)):
            known.attr_docs["", name] = _constant_text(package, name) + _keys(getattr(public, name))


def _keys(value: Any) -> list[str]:
    """A table's keys in place of its values, which are functions."""
    if not isinstance(value, dict):
        return []
    return ["Keys: " + ", ".join(f"``{key}``" for key in value) + ".", "", ":meta hide-value:", ""]


def _constant_text(package: str, name: str) -> list[str]:
    for module in sorted(sys.modules):
        if module.startswith(f"{package}."):
            text = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name))
            if text:
                return text
    return [""]


def setup(app: Sphinx) -> dict[str, bool]:
    for found in pkgutil.walk_packages(importlib.import_module("lcprune").__path__, "lcprune."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    for stage in STAGES:
        _describe_constants(f"lcprune.{stage}")
    docstrings = _Docstrings()
    app.connect("autodoc-process-docstring", docstrings.process)
    app.connect("autodoc-process-signature", docstrings.sign)
    app.connect("autodoc-skip-member", docstrings.skip)
    app.connect("missing-reference", docstrings.resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
