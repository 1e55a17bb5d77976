"""A disk that is full ends a run in one line; with space again it goes on."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from digit_runs import Prune, outcome
from lcprune._files import PARTIAL
from lcprune.artifact import ARTIFACT, NEW, PLAN, WEIGHTS
from lcprune.cli import main
from lcprune.runs import CHECKPOINT, GRAPH, JOURNAL, RUN, SUMMARY, RunState, run_state
from lcprune.searching import read_journal

if sys.platform != "linux":
    pytest.skip("by the means of Linux", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from write_points import FULL, GO_ON, Point, watched

# Which file is the first that finds no space, and at which of the writes to it.
IN_TURN = [
    (RUN, 1),
    (RUN, 3),
    (JOURNAL, 1),
    (JOURNAL, 30),
    (CHECKPOINT, 1),
    (CHECKPOINT, 2),
    (GRAPH, 1),
    (PLAN, 1),
    (WEIGHTS, 1),
    (ARTIFACT, 1),
    (SUMMARY, 1),
]


def whole(out: Path) -> dict[str, bytes]:
    """The run's files but for the journal, which is read in its own way."""
    return {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if not path.name.startswith((JOURNAL, PARTIAL)) and path.suffix not in (NEW, ".lock")
    }


class FullFrom:
    """A disk without space from one of the writes to a file on."""

    def __init__(self, out: Path, name: str, write: int) -> None:
        self._out = out
        self._name = name
        self._left = write
        self.before: dict[str, bytes] = {}

    @property
    def is_full(self) -> bool:
        return self._left <= 0

    def meet(self, point: Point) -> str:
        if not self.is_full and self._name in point.file and point.carries:
            self._left -= 1
            if self.is_full:
                self.before = whole(self._out)
        return FULL if self.is_full else GO_ON


@pytest.mark.thorough
def test_a_disk_that_is_full_at_each_file_in_turn(
    tmp_path: Path, finished: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for name, write in IN_TURN:
        disk = FullFrom(out, name, write)
        with watched(out, disk.meet):
            assert prune(out, "--resume") == 2
        assert disk.is_full
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert "No space left on device" in error or "disk is full" in error
        # The files of the network are written as one, and named by any of them.
        assert (name if name not in (PLAN, WEIGHTS, ARTIFACT) else str(out)) in error
        assert whole(out) == disk.before
        assert not [p for p in out.iterdir() if p.name.startswith(PARTIAL) and p.suffix != ".lock"]
        state = RunState.UNFINISHED if disk.before else RunState.EMPTY
        assert run_state(out) is state
    assert prune(out, "--resume") == 0
    assert outcome(out) == outcome(finished)
    assert read_journal(out / JOURNAL).trials == read_journal(finished / JOURNAL).trials


@pytest.mark.parametrize(
    ("limit", "name"),
    [(10_000, JOURNAL), pytest.param(60_000, CHECKPOINT, marks=pytest.mark.thorough)],
)
def test_a_file_that_the_system_lets_grow_no_further(
    tmp_path: Path,
    finished: Path,
    prune: Prune,
    capsys: pytest.CaptureFixture[str],
    limit: int,
    name: str,
) -> None:
    import resource

    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        code = prune(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert name in error
    assert [p.name for p in out.iterdir() if p.name.startswith(PARTIAL)] == []
    assert main(["prune", "--out", str(out), "--resume"]) == 0
    assert outcome(out) == outcome(finished)


class Full(io.TextIOBase):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("stderr", [pytest.param(True, marks=pytest.mark.thorough), False])
def test_a_log_on_a_full_disk(
    prune: Prune,
    tmp_path: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stderr: bool,
) -> None:
    """What is printed goes nowhere; what was done is kept."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        if stderr:
            patch.setattr(sys, "stderr", Full())
        assert prune(out) == 2
    told = capsys.readouterr().err
    assert told == ("" if stderr else "error: can't print to stdout: No space left on device\n")
    assert prune(out, "--resume") == 0
    assert outcome(out) == outcome(finished)


@pytest.mark.thorough
def test_a_command_whose_output_finds_no_space() -> None:
    """To the end of the process, which writes what is left in buffers."""
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "lcprune", "inspect", "digits_resnet", "--input", "1x1x8x8"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert result.stderr == "error: can't print to stdout: No space left on device\n"
    assert result.returncode == 2
