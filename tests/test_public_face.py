"""The public names: sorted, importable, complete, and imported when they are asked for."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import lcprune
import lcprune.runs

LAZY = [lcprune, lcprune.runs]


def told_to_type_checkers(package: ModuleType) -> dict[str, str]:
    """The names that a package imports for type checkers only, and from where."""
    tree = ast.parse(inspect.getsource(package))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    assert [ast.unparse(block.test) for block in blocks] == ["TYPE_CHECKING"]
    return {
        alias.name: str(node.module)
        for node in blocks[0].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_the_public_face_is_sorted_importable_and_complete(package: ModuleType) -> None:
    names = package.__all__
    # Constants, classes, functions: the order that the linter keeps.
    assert names == sorted(set(names), key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert dir(package) == sorted(names)
    everything: dict[str, object] = {}
    exec(f"from {package.__name__} import *", everything)
    assert set(everything) - {"__builtins__"} == set(names)
    told = told_to_type_checkers(package)
    assert set(told) <= set(names)
    for name, module in told.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)


def test_the_package_itself_tells_type_checkers_all_of_it() -> None:
    assert set(told_to_type_checkers(lcprune)) == set(lcprune.__all__)


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_what_there_is_not_is_an_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'no'"):
        _ = package.no


def test_nothing_heavy_is_imported_before_it_must() -> None:
    """Nor for help, nor for a command line that can't be understood."""
    program = (
        "import sys, lcprune, lcprune.runs\n"
        "from lcprune.cli import main\n"
        "assert 'cyclopts' not in sys.modules\n"
        "assert main([]) == main(['--help']) == main(['prune', '--help']) == 0\n"
        "assert main(['prune', 'm', '--trails', '3']) == 2\n"
        "assert main(['prune', 'm', '--out', 'o', '--trials', '0']) == 2\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'sklearn', 'PIL'} & set(sys.modules)))\n"
        "assert lcprune.Budget(macs=0.5) and 'numpy' in sys.modules\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"
