"""What lcprune raises, and warns of."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import lcprune
from lcprune import errors

CLASSES = [value for value in vars(errors).values() if isinstance(value, type)]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_message_is_one_line_that_a_terminal_shows(kind: type[Exception]) -> None:
    error = kind("can't read \x1b[31m\nerror: all is well\u202e")
    assert str(error) == r"can't read \x1b[31m\nerror: all is well\u202e"
    assert len(str(kind("x" * 10**6))) <= 2000
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_every_exception_has_one_root_and_input_errors_are_one_branch() -> None:
    for kind in CLASSES:
        assert issubclass(kind, errors.LcpruneError | errors.LcpruneWarning)


def test_every_warning_is_of_the_class_by_which_the_command_line_tells_it() -> None:
    for path in Path(lcprune.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                assert ast.unparse(node.args[1]) == "LcpruneWarning", (path, node.lineno)
