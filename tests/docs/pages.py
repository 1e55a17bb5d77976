"""The pages that are tested, and what is in them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench" / "README.md", *DOCS]

_FENCE = re.compile(r"^```(?P<language>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^|\n)\n((?:    [^\n]*\n|\n)+)")
_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\((?P<inline>[^)\s]+)\)|^\[[^\]]+\]:\s*(?P<named>\S+)", re.M)


def name_of(page: Path) -> str:
    """The page as tests call it."""
    return str(page.relative_to(ROOT))


def code_blocks(page: Path, language: str = "python") -> list[str]:
    """The bodies of fenced blocks in a language."""
    return [
        match["body"]
        for match in _FENCE.finditer(page.read_text(encoding="utf-8"))
        if match["language"].strip() == language
    ]


def shell_lines(page: Path) -> list[str]:
    """Command lines that begin with ``lcprune``, indented or fenced, continued lines joined."""
    text = page.read_text(encoding="utf-8")
    blocks = [m["body"] for m in _FENCE.finditer(text) if m["language"].strip() in ("", "sh")]
    blocks += _INDENTED.findall(text)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip().startswith("lcprune ")]


def links(page: Path) -> list[str]:
    """Every link target outside of code."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`]*`", "", text)
    return [match["inline"] or match["named"] for match in _LINK.finditer(text)]


def anchors(page: Path) -> set[str]:
    """The anchors that a code host gives the headings of a page."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def load_extension(name: str) -> ModuleType:
    """A module of the site's own, ``docs/NAME.py``."""
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
