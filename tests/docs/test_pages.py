"""What the pages say exists: links, Python names, options, commands, the page in the contents."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

import lcprune
from docs.pages import (
    DOCS,
    PAGES,
    ROOT,
    anchors,
    code_blocks,
    links,
    load_extension,
    name_of,
    shell_lines,
)
from lcprune.cli import main
from lcprune.cli._parser import COMMANDS

PYTHON = [(page, n) for page in PAGES for n in range(len(code_blocks(page)))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(found), target


def test_there_are_links_blocks_and_commands_to_look_at() -> None:
    assert "docs/tracing.md" in links(ROOT / "README.md")
    assert len(PYTHON) >= 4
    assert sum(len(shell_lines(page)) for page in PAGES) >= 4


@pytest.mark.parametrize(("page", "number"), PYTHON, ids=lambda v: getattr(v, "name", v))
def test_python_blocks_name_what_exists(page: Path, number: int) -> None:
    tree = ast.parse(code_blocks(page)[number])
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lcprune"):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module}.{name.name}"
        if isinstance(node, ast.Attribute) and _is_package(node.value):
            assert node.attr in lcprune.__all__, f"lp.{node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            _check_call(node, node.func)


def _is_package(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("lp", "lcprune")


def _check_call(call: ast.Call, function: ast.Attribute) -> None:
    """The arguments must fit the signature, as far as they are written out."""
    if not _is_package(function.value):
        return
    unpacked = any(isinstance(a, ast.Starred) for a in call.args) or any(
        keyword.arg is None for keyword in call.keywords
    )
    signature = inspect.signature(getattr(lcprune, function.attr))
    keywords = {str(keyword.arg): ... for keyword in call.keywords if keyword.arg is not None}
    positional = [a for a in call.args if not isinstance(a, ast.Starred)]
    (signature.bind_partial if unpacked else signature.bind)(*positional, **keywords)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_use_what_the_commands_take(page: Path) -> None:
    for line in shell_lines(page):
        _, command, *arguments = shlex.split(line)
        assert command in COMMANDS, line
        known = {name for one in COMMANDS[command].options.values() for name in one.names}
        used = {a.partition("=")[0] for a in arguments if a.startswith("--")}
        assert used <= known | {"--help"}, line


def test_every_command_has_its_options_on_a_page() -> None:
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert re.findall(r"^\.\. command-options:: (\w+)$", text, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_table_of_options_is_that_of_the_help(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = load_extension("options_table").option_rows(command)
    monkeypatch.setenv("COLUMNS", "200")
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    asked = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", shown)) - {"--help"}
    assert {name for names, *_ in rows for name in names.split()} == asked
    assert all(text.endswith(".") for *_, text in rows)
    for _, default, bounds, _ in rows:
        assert default in shown
        assert bounds in shown.replace("|", ", ")


def test_every_page_is_in_the_contents() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names = {line for block in listed for line in block.split("\n") if line and line[0] != ":"}
    pages = {str(p.relative_to(ROOT / "docs").with_suffix("")) for p in DOCS} - {"index"}
    assert names == pages
