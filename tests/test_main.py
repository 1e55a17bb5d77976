"""``python -m lcprune``, and the installed program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from order import few


@pytest.mark.parametrize("arguments", few([["--help"], ["inspect", "digits_resnet"]], 1))
def test_the_module_is_the_command_line(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "lcprune", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout
    assert result.stderr == ""


def test_the_program_is_the_module() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["lcprune"].partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize(
    "arguments", [["-m", "lcprune"], ["-c", "from lcprune.__main__ import main; main()"]]
)
@pytest.mark.skipif(sys.platform == "win32", reason="by signals of POSIX")
def test_ctrl_c_is_quiet_before_anything_of_the_command_line_is_imported(
    tmp_path: Path, arguments: list[str]
) -> None:
    """The first module that it needs never ends being imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, sys, threading\n"
        "class Slow(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'lcprune.cli':\n"
        "            print('importing', flush=True)\n"
        "            threading.Event().wait()\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    search = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, error) == (-signal.SIGINT, "")
