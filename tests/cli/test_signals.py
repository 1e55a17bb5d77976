"""SIGTERM and SIGHUP end a run as Ctrl-C does: with its work kept and the line that goes on."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from digit_runs import outcome
from lcprune.cli import _commands, main
from lcprune.cli._signals import Stop, Stopped, ending_on_signals
from lcprune.data import AugmentedBatches
from lcprune.errors import DataError
from lcprune.fitness import CrossEntropy
from lcprune.runs import CHECKPOINT, JOURNAL, Silent
from lcprune.searching import read_journal
from order import few

from .conftest import Prune

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")

TERM, HUP, INT = signal.SIGTERM, getattr(signal, "SIGHUP", 1), signal.SIGINT


def at_call(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, do: Callable[[], None]
) -> None:
    """Have ``do`` done at the beginning of a method's ``call``-th call."""
    original = getattr(owner, name)
    calls = 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            do()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)


@pytest.mark.parametrize(
    ("numbers", "code", "evaluated"),
    few([([TERM], 143, 3), ([TERM, INT], 143, 2), ([HUP], 129, 3), ([TERM, TERM], 143, 2)], 2),
)
def test_a_search_ends_after_the_trial_and_at_once_when_asked_again(
    tmp_path: Path,
    finished: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    numbers: Sequence[int],
    code: int,
    evaluated: int,
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        at_call(
            patch, CrossEntropy, "__call__", 3, lambda: [*map(signal.raise_signal, numbers)].clear()
        )
        assert prune(out) == code
    trials = read_journal(out / JOURNAL).trials
    assert sum(trial.same_as is None for trial in trials) == evaluated
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    line = error.strip().partition("interrupted; to go on: ")[2]
    assert main(shlex.split(line)[1:]) == 0
    assert outcome(out) == outcome(finished)
    assert signal.getsignal(TERM) is signal.SIG_DFL


def test_a_training_ends_at_once_and_keeps_its_last_checkpoint(
    tmp_path: Path,
    finished: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    kept: list[bytes] = []

    def ask() -> None:
        kept.append((out / CHECKPOINT).read_bytes())
        signal.raise_signal(TERM)

    with monkeypatch.context() as patch:
        at_call(patch, AugmentedBatches, "_augment", 15, ask)  # of 12 an epoch
        assert prune(out) == 143
    assert (out / CHECKPOINT).read_bytes() == kept[0]
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["prune", "--out", str(out), "--resume"]) == 0
    assert outcome(out) == outcome(finished)


@pytest.mark.parametrize("error", [DataError("a process that reads images was ended"), OSError(5)])
def test_what_a_signal_did_to_others_is_not_told_as_an_error(
    tmp_path: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    """One to all processes of a group ends those that read images as well."""

    def both(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(TERM)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setattr("lcprune.runs._prune.Problem.of", both)
    assert prune(tmp_path / "out") == 143
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_a_run_that_is_done_is_not_said_to_be_lost(
    tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch, capsys: Any, finished: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(INT)

    monkeypatch.setattr(_commands, "result_table", interrupted)
    assert main(["prune", "--out", str(finished), "--resume"]) == 130
    assert capsys.readouterr().err == f"interrupted; {finished} holds a finished run\n"


def test_afterwards_all_is_as_before() -> None:
    before = [signal.getsignal(number) for number in (TERM, HUP, INT)]
    with ending_on_signals() as stop:
        assert all(signal.getsignal(number) == stop.ask for number in (TERM, HUP, INT))
    assert [signal.getsignal(number) for number in (TERM, HUP, INT)] == before


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["nohup", "of a host"])
def test_what_is_not_left_to_the_system_stays_as_it_is(handler: Any) -> None:
    before = signal.signal(HUP, handler)
    try:
        with ending_on_signals():
            assert signal.getsignal(HUP) is handler
        assert signal.getsignal(HUP) is handler
    finally:
        signal.signal(HUP, before)


def test_other_threads_leave_signals_alone() -> None:
    found: list[Any] = []

    def work() -> None:
        with ending_on_signals() as stop:
            found.extend([signal.getsignal(TERM), stop.number])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL, None]


def test_the_third_ends_the_process() -> None:
    """Whatever the second one's exception has run into."""
    stop = Stop()
    before = signal.getsignal(TERM)
    try:
        for _ in range(2):
            with pytest.raises(Stopped):
                stop.ask(TERM, None)
        assert signal.getsignal(TERM) is signal.SIG_DFL
    finally:
        signal.signal(TERM, before)


def test_a_search_without_a_trial_left_ends_too() -> None:
    stop = Stop()

    def search() -> None:
        with stop.reporter(Silent()).progress("search", 3) as advance:
            advance(3, "")
            stop.ask(TERM, None)

    with pytest.raises(Stopped):
        search()


@pytest.mark.parametrize(("number", "status"), [(TERM, -TERM), (HUP, 0)])
def test_children_that_are_forked_meanwhile(number: int, status: int) -> None:
    """Not theirs to end the run: a hang-up is the parent's matter, SIGTERM ends them alone."""
    with ending_on_signals():
        child = os.fork()
        if not child:
            signal.raise_signal(number)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status


HEAVY = """
import threading

while True:
    try:
        print("importing", flush=True)
        threading.Event().wait()
    except BaseException:  # as C code does that clears what a callback raised
        pass
"""


@pytest.mark.parametrize("command", ["inspect digits_resnet", "prune m --data d --out o"])
def test_ctrl_c_is_quiet_while_pytorch_is_imported(tmp_path: Path, command: str) -> None:
    """A module that swallows every exception stands in for it."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(HEAVY)
    search = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-m", "lcprune", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(INT)
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, error) == (130, "")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("owner", ["lcprune.cli._parser.parse", "lcprune.cli._commands.run"])
def test_ctrl_c_is_quiet_in_a_host_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], owner: str
) -> None:
    monkeypatch.setattr(owner, lambda *_: signal.raise_signal(INT))
    assert main(["inspect", "digits_resnet"]) == 130
    assert capsys.readouterr() == ("", "")
    assert signal.getsignal(INT) is signal.default_int_handler


class NobodyReads:
    """Standard output whose reader is gone."""

    encoding = "utf-8"

    def __init__(self, number: int = -1) -> None:
        self.number = number

    def write(self, _: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    flush = isatty = lambda self: False

    def fileno(self) -> int:
        return self.number


@pytest.mark.parametrize("command", ["inspect digits_resnet", "prune --help", "--help"])
def test_a_closed_pipe_ends_a_command_without_a_word(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    with monkeypatch.context() as patch, (tmp_path / "stdout").open("w") as file:
        patch.setattr("sys.stdout", NobodyReads(file.fileno()))
        assert main(command.split()) == 141
    assert capsys.readouterr().err == ""


def test_a_run_whose_pipe_is_closed_can_go_on(
    tmp_path: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", NobodyReads())
        assert prune(out, trials=2, finetune_epochs=0) == 141
    line = f"interrupted; to go on: lcprune prune --out {out} --resume\n"
    assert capsys.readouterr().err == line
    assert main(["prune", "--out", str(out), "--resume"]) == 0


def test_what_is_printed_last_may_find_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer that is only written at the end."""

    def broken() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    out = io.StringIO()
    monkeypatch.setattr(out, "flush", broken)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("lcprune.cli._commands.run", lambda *_: 0)
    assert main(["inspect", "digits_resnet"]) == 141


def test_an_interrupt_that_something_swallows_ends_the_run_at_its_next_word() -> None:
    """As an import or a callback of C code may."""
    stop = Stop()
    reporter = stop.reporter(Silent())
    reporter.stage("begins")
    with contextlib.suppress(KeyboardInterrupt):
        stop.ask(INT, None)
    with pytest.raises(Stopped):
        reporter.stage("goes on")
    with pytest.raises(Stopped), reporter.progress("training", 3) as advance:
        advance(1, "")
    assert stop.exit_code == 130


def test_ctrl_c_does_not_wait_for_a_trial() -> None:
    stop = Stop()
    with stop.finishing_steps(), pytest.raises(Stopped):
        stop.ask(INT, None)
