"""Docstrings as the site shows them: code, links, and where each public name has its place."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

import pytest

import lcprune
from docs.pages import ROOT, load_extension


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    return load_extension("docstrings")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (["Text.", "", "    code", "    more"], ["Text.", "", "::", "", "    code", "    more"]),
        (["Example:", "    code"], ["Example::", "", "    code"]),
        (
            ["", "    for x in y:", "        code", "", "    code", "Text"],
            ["", "::", "", "    for x in y:", "        code", "", "    code", "Text"],
        ),
        (["- item", "  goes on", "- next"], ["- item", "  goes on", "- next"]),
    ],
)
def test_indented_code_becomes_a_literal_block(
    docstrings: ModuleType, written: list[str], shown: list[str]
) -> None:
    assert docstrings.literal_blocks(written) == shown


def test_names_in_backticks_are_links_but_parameters_are_not(docstrings: ModuleType) -> None:
    names = {"Plan": "lcprune.ranking.Plan", "rank": "lcprune.ranking.rank"}
    line = "``Plan`` of ``rank``, ``lcprune.rank`` and ``other``"
    assert docstrings.linked(line, names, {"rank"}) == (
        ":py:obj:`Plan <lcprune.ranking.Plan>` of ``rank``, "
        ":py:obj:`lcprune.rank <lcprune.ranking.rank>` and ``other``"
    )


def test_stars_of_paths_are_stars(docstrings: ModuleType) -> None:
    shown = docstrings.starred("train/CLASS/*, ``test/CLASS/*`` and 2 * *emphasis*, test/*")
    assert shown == "train/CLASS/\\*, ``test/CLASS/*`` and 2 * *emphasis*, test/\\*"


def test_signatures_are_plain(docstrings: ModuleType) -> None:
    made = "(a: TypeAliasForwardRef('lcprune.graph.BoolArray') | None = <factory>, b: str = 'x')"
    plain = "(a: ~lcprune.graph.BoolArray | None = ..., b: str = 'x')"
    assert docstrings.plain_signature(made) == plain


def test_every_public_name_has_one_place(docstrings: ModuleType) -> None:
    names = docstrings.public_names()
    for name in lcprune.__all__:
        home = names[f"lcprune.{name}"]
        module, _, leaf = home.rpartition(".")
        assert getattr(importlib.import_module(module), leaf) is getattr(lcprune, name)
    private = f"{lcprune.ChannelGraph.__module__}.ChannelGraph"
    assert names[private] == names["ChannelGraph"] == "lcprune.graph.ChannelGraph"


def test_the_top_page_lists_every_public_name() -> None:
    text = (ROOT / "docs" / "api" / "lcprune.md").read_text(encoding="utf-8")
    listed = re.findall(r"^   (\w+)$", text, re.MULTILINE)
    errors = {n for n in lcprune.__all__ if _is_error(getattr(lcprune, n))}
    assert sorted(listed) == sorted(set(lcprune.__all__) - errors)


def _is_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Exception)


def test_every_stage_has_a_page(docstrings: ModuleType) -> None:
    pages = {page.stem for page in (ROOT / "docs" / "api").glob("*.md")} - {"lcprune"}
    assert pages == set(docstrings.STAGES)
