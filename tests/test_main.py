"""``python -m lcprune``."""

from __future__ import annotations

import runpy

import pytest


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "digits_resnet"]])
def test_the_module_is_the_command_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["lcprune", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lcprune", run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert capsys.readouterr().out
