"""The pruning job, from what the user gave to a finished run directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lcprune import artifact
from lcprune.artifact import RunRecord, RunState, Summary
from lcprune.cli._config import Options, PruneConfig
from lcprune.cli._prepare import prepare
from lcprune.cli._progress import Reporter, Silent
from lcprune.cli._stages import Stages
from lcprune.errors import RunError


def prune_job(
    config: PruneConfig,
    out: str | Path,
    *,
    command: str = "prune",
    resume: bool = False,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Summary:
    """Prune a model to a budget, fine-tune it, and write everything to the directory ``out``.

    A run that was interrupted, at whatever moment, goes on with ``resume`` and ends with the
    same plan and weights; ``resume`` on a finished run gives its summary again. ``force``
    replaces an earlier run. ``command`` is the subcommand that a later ``--resume`` takes.

    ``InputError`` where the configuration or ``out`` can't be used; then nothing was written.
    ``VerificationError`` where the slimmed network is not the masked original; then no network
    is published.
    """
    out = Path(out)
    reporter = reporter or Silent()
    state = artifact.check_run(out, resume=resume, force=force)
    record: RunRecord | None = None
    if resume and state is not RunState.EMPTY:
        record = same_run(out, command, config)
        if state is RunState.FINISHED:
            return artifact.read_summary(out)
    inputs = prepare(config)
    for note in inputs.graph.notes:
        reporter.stage(note)
    with artifact.locked(out):
        if record is None:
            record = RunRecord(command, config.as_json())
            artifact.begin_run(out, record)
        summary = Stages(config, out, inputs, record, reporter).run()
        artifact.write_summary(out, summary)
    return summary


def same_run(out: Path, command: str, config: Options) -> RunRecord:
    """The record of the run in ``out``; ``RunError`` where it is not the one that is asked for."""
    record = artifact.read_run(out)
    check_command(out, record, command)
    asked = config.as_json()
    # A run from before there was an option had what is its default now.
    stored = replace(record, configuration={**type(config)().as_json(), **record.configuration})
    key = stored.first_difference(asked)
    if key is not None:
        raise RunError(
            f"can't resume with another {key}: the run in {out} has "
            f"{stored.configuration.get(key)!r}, asked was {asked.get(key)!r}"
        )
    return record


def check_command(out: Path, record: RunRecord, command: str) -> None:
    """``RunError`` where another subcommand began the run in ``out``."""
    if record.command != command:
        raise RunError(
            f"can't resume: {out} holds a run of {record.command}; to go on with it: "
            f"{artifact.resume_line(out, record.command)}"
        )
