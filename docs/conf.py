"""How the documentation is built: `make docs`, offline, every warning an error."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "lcprune"
author = "the lcprune contributors"
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "docstrings",
    "options_table",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = "lcprune"
html_copy_source = False
html_show_sourcelink = False

# Links to a heading, as a code host makes them.
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "imported-members": True, "no-value": True}
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
autosummary_generate = False
maximum_signature_line_length = 88

# What a signature calls these, in place of what they stand for.
autodoc_type_aliases = {
    "BoolArray": "lcprune.graph.BoolArray",
    "FloatArray": "lcprune.graph.FloatArray",
    "IntArray": "lcprune.graph.IntArray",
    "npt.ArrayLike": "numpy.typing.ArrayLike",
}

# Names of other libraries are not looked up: that would want the network. Private types have no
# place to link to.
nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(torch|numpy|np|npt|nn|os|pathlib|collections|contextlib|typing|optree)(\..*)?",
    ),
    (r"py:.*", r"lcprune\.(\w+\.)*_\w+\..*"),
]
