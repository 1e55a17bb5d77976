"""The directive ``command-options``: the options of a command, as its ``--help`` has them."""

from __future__ import annotations

import re
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lcprune.cli._app import app

_MARKUP = re.compile(r"([\\*`|])|_\b")


def commands() -> dict[str, Any]:
    """Every command by name, as click's objects."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def option_rows(command: str) -> list[tuple[str, str, str]]:
    """(names, default, help) of every option of a command but ``--help``."""
    return [
        (
            " ".join([*option.opts, *option.secondary_opts]),
            _default(option),
            option.help or "",
        )
        for option in commands()[command].params
        if option.param_type_name == "option" and "--help" not in option.opts
    ]


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return option.show_default
    return "" if option.default is None or option.default is False else str(option.default)


class CommandOptions(SphinxDirective):
    """``.. command-options:: prune`` is a table of that command's options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - option", "     - default"]
        lines.append("     - what it is")
        for names, default, text in option_rows(self.arguments[0]):
            lines += [f"   * - ``{names}``", f"     - {default}", f"     - {_escaped(text)}"]
        return self.parse_text_to_nodes("\n".join(lines))


def _escaped(text: str) -> str:
    return _MARKUP.sub(lambda match: "\\" + match[0], text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-options", CommandOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
