"""The directory of a run, for one process or for several that train together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lcprune import artifact
from lcprune.artifact import RunRecord, RunState
from lcprune.errors import RunError
from lcprune.runs._findings import Findings
from lcprune.runs._options import Options
from lcprune.training import on_main


def earlier_run(
    config: Options, out: Path, command: str, *, resume: bool, force: bool
) -> tuple[RunState, RunRecord | None]:
    """What ``out`` holds, and the record of the run to go on with; none where a new one begins.

    ``RunError`` where neither may be.
    """

    def found() -> tuple[RunState, RunRecord | None]:
        state = artifact.check_run(out, resume=resume, force=force)
        goes_on = resume and state is not RunState.EMPTY
        return state, _same_run(out, command, config) if goes_on else None

    return on_main(found)


@contextmanager
def at_work(
    config: Options, out: Path, command: str, record: RunRecord | None
) -> Iterator[Findings]:
    """Begin the run, or go on with ``record``; within, ``out`` is closed to other runs."""
    with ExitStack() as stack:

        def begin() -> RunRecord:
            stack.enter_context(artifact.locked(out))
            if record is not None:
                return record
            new = RunRecord(command, config.as_json())
            artifact.begin_run(out, new)
            return new

        yield Findings(out, on_main(begin))


def check_command(out: Path, record: RunRecord, command: str) -> None:
    """``RunError`` where another subcommand began the run in ``out``."""
    if record.command != command:
        raise RunError(
            f"can't resume: {out} holds a run of {record.command}; to go on with it: "
            f"{artifact.resume_line(out, record.command)}"
        )


def _same_run(out: Path, command: str, config: Options) -> RunRecord:
    record = artifact.read_run(out)
    check_command(out, record, command)
    asked = config.as_json()
    key = record.first_difference(asked)
    if key is not None:
        raise RunError(
            f"can't resume with another {key}: the run in {out} has "
            f"{record.configuration.get(key)!r}, asked was {asked.get(key)!r}"
        )
    return record
