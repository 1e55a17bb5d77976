"""The directive ``command-options``: the options of a command, as its ``--help`` has them."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lcprune.cli._parser import COMMANDS

_MARKUP = re.compile(r"([\\*`|])|_\b")


def option_rows(command: str) -> list[tuple[str, str, str, str]]:
    """(names, default, range, help) of every option of a command."""
    return [
        (
            " ".join(one.names),
            "required" if one.required else one.shown_default,
            one.details.range,
            one.details.help,
        )
        for one in COMMANDS[command].options.values()
        if one.names
    ]


class CommandOptions(SphinxDirective):
    """``.. command-options:: prune`` is a table of that command's options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - option", "     - default"]
        lines += ["     - range", "     - what it is"]
        for names, *cells in option_rows(self.arguments[0]):
            lines += [f"   * - ``{names}``", *(f"     - {_escaped(cell)}" for cell in cells)]
        return self.parse_text_to_nodes("\n".join(lines))


def _escaped(text: str) -> str:
    return _MARKUP.sub(lambda match: "\\" + match[0], text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-options", CommandOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
