"""Whatever ends a command is one line on stderr and an exit code; ``--debug`` shows where."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from lcprune.cli import _stderr, main
from lcprune.cli._parser import COMMANDS
from lcprune.errors import InputError, LcpruneWarning, RunError, VerificationError

NET = "import torch\nfrom torch import nn\n"


def ends_in(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object], *flags: str) -> int:
    """The exit code of a command that does that."""
    monkeypatch.setattr("lcprune.cli._commands.run", lambda _: do())
    return main(["inspect", "digits_resnet", *flags])


def raising(error: BaseException) -> Callable[[], object]:
    def do() -> object:
        raise error

    return do


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a is 3, expected 4"), 2, "a is 3, expected 4"),
        (RunError("a\nb\x1b[2J"), 2, r"a\nb\x1b[2J"),
        (VerificationError("differs"), 1, "differs"),
        (KeyError("k"), 2, "unexpected KeyError: 'k' (--debug shows where)"),
        (
            ValueError("a\n  b\x1b[2J"),
            2,
            r"unexpected ValueError: a b\x1b[2J (--debug shows where)",
        ),
        (AssertionError(), 2, "unexpected AssertionError (--debug shows where)"),
        (FileNotFoundError(2, "No such file", "x\ny"), 2, "No such file: x y"),
        (PermissionError(13, "Permission denied", b"\xff"), 2, None),
        (OSError(36, "File name too long", "x" * 5000), 2, None),
        (OSError("no number"), 2, "unexpected OSError: no number (--debug shows where)"),
        (MemoryError(), 2, "there is not enough memory for that"),
        (RecursionError("deep"), 2, "unexpected RecursionError: deep (--debug shows where)"),
        (SystemExit(3), 2, "code of the model or the data ended the program (3)"),
        (SystemExit("bye\n"), 2, "code of the model or the data ended the program (bye)"),
        (SystemExit(), 2, "code of the model or the data ended the program (0)"),
        (GeneratorExit(), 2, None),
        (ExceptionGroup("two", [KeyError(1), KeyError(2)]), 2, None),
        (UnicodeEncodeError("ascii", "é", 0, 1, "ordinal"), 2, None),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_any_exception_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str | None,
) -> None:
    assert ends_in(monkeypatch, raising(error)) == code
    told = capsys.readouterr().err
    assert told.count("\n") == (0 if line == "" else 1)
    assert told.removesuffix("\n").isprintable()
    assert len(told) < 2500
    if line:
        assert told == f"error: {line}\n"


def test_an_exception_whose_own_text_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert ends_in(monkeypatch, raising(BadError())) == 2
    assert capsys.readouterr().err == "error: unexpected BadError: BadError (--debug shows where)\n"


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("error", [InputError("a\x1b[2J"), KeyError("a\x1b[2J"), SystemExit(3)])
def test_debug_shows_the_traceback_before_the_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: int,
    error: BaseException,
) -> None:
    monkeypatch.setattr("lcprune.cli._commands.run", lambda _: raising(error)())
    line = ["inspect", "digits_resnet"]
    line.insert(0 if place == 0 else len(line), "--debug")
    assert main(line) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "Traceback (most recent call last):"
    assert any("in raising" in text or "in do" in text for text in told)
    assert told[-1].startswith("error: ")
    assert all(text.isprintable() for text in told)


def test_every_command_has_debug_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], *([name] for name in COMMANDS)):
        assert main([*command, "--help"]) == 0
        assert "--debug" in capsys.readouterr().out


def test_warnings_of_others_do_not_stand_beside_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import logging

    def noisy() -> int:
        for text in ("beta state", "beta state", "\x1b[2J"):
            warnings.warn(text, UserWarning, stacklevel=1)
        logging.getLogger("of.another").warning("logged %s", "too")
        warnings.warn("ours", LcpruneWarning, stacklevel=1)
        return 0

    def failing() -> int:
        noisy()
        raise InputError("bad")

    shown, logs = warnings.showwarning, logging.lastResort
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert ends_in(monkeypatch, failing) == 2
        assert capsys.readouterr().err == "warning: ours\nerror: bad\n"
        assert ends_in(monkeypatch, noisy) == 0
        assert capsys.readouterr().err == (
            "warning: ours\nwarning: beta state\nwarning: \\x1b[2J\nwarning: logged too\n"
        )
    assert warnings.showwarning is shown
    assert logging.lastResort is logs


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_names_that_stdout_can_not_encode_are_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    name = "größe-网络-\udcff[/b]"

    def show() -> int:
        from lcprune.cli._progress import Output

        Output().print(name)
        print(name)
        return 0

    assert ends_in(monkeypatch, show) == 0
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "[/b]" in text
    assert stream.errors == "strict"


CODE = {
    "in the factory": "def make():\n    raise SystemExit(3)\n",
    "when it is imported": "import sys\nsys.exit('bye')\n",
    "in forward": NET + "class Net(nn.Module):\n    def __init__(self):\n"
    "        super().__init__()\n        self.conv = nn.Conv2d(3, 8, 3)\n"
    "    def forward(self, x):\n        raise SystemExit(7)\n"
    "def make():\n    return Net()\n",
    "without memory": "def make():\n    raise MemoryError\n",
    "without end": "def make():\n    return make()\n",
    "with two lines": "def make():\n    raise ValueError('a\\n\\x1b[2Jb')\n",
    "an interface of another": "def make(x):\n    pass\n",
    "no Python": "def make(:\n",
    "no text": "\0",
}


@pytest.mark.parametrize("what", CODE)
def test_code_of_a_user_that_ends_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    (tmp_path / "net.py").write_text(CODE[what])
    assert main(["inspect", f"{tmp_path / 'net.py'}:make", "--input", "1x3x8x8"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert told.removesuffix("\n").isprintable()


def test_where_there_is_no_stderr_nothing_goes_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", None)
        assert ends_in(patch, raising(InputError("bad"))) == 2
    assert capsys.readouterr().out == ""


def test_a_pipe_to_another_process_that_breaks_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        assert ends_in(patch, raising(BrokenPipeError(32, "Broken pipe"))) == 2
        os.close(reading)
        assert ends_in(patch, raising(BrokenPipeError(32, "Broken pipe"))) == 141
    assert capsys.readouterr().err == "error: Broken pipe\n"


@pytest.mark.skipif(sys.platform == "win32", reason="by a POSIX shell")
@pytest.mark.parametrize("command", ["inspect digits_resnet --input 1x1x8x8", "prune --help"])
def test_head_ends_it_with_the_conventional_code(command: str) -> None:
    """In a shell: SIGPIPE's code, and not a word."""
    line = f"{sys.executable} -m lcprune {command} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    assert result.returncode in (0, 141)
    assert result.stderr == ""


SLOW = """
import threading
print("importing", flush=True)
threading.Event().wait()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="by signals of POSIX")
@pytest.mark.parametrize("heavy", ["cyclopts", "rich", "logging", "numpy", "torch"])
def test_ctrl_c_is_quiet_from_the_first_import(tmp_path: Path, heavy: str) -> None:
    """While any package is imported, also for ``python -m lcprune``."""
    (tmp_path / heavy).mkdir()
    (tmp_path / heavy / "__init__.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-m", "lcprune", "inspect", "digits_resnet"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
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
    assert (process.returncode, error) == (130, "")


def test_the_codes_are_those_of_the_docs() -> None:
    assert (_stderr.FAILED, _stderr.BAD_INPUT, _stderr.INTERRUPTED) == (1, 2, 130)
