"""The pruning job, from what the user gave to a finished run directory."""

from __future__ import annotations

from pathlib import Path

from lcprune import artifact
from lcprune.artifact import RunState, Summary
from lcprune.runs._directory import at_work, earlier_run
from lcprune.runs._options import PruneOptions
from lcprune.runs._prepare import prepare
from lcprune.runs._reporter import Reporter, Silent
from lcprune.runs._stages import Stages
from lcprune.training import alike, is_main, on_main


def prune_job(
    config: PruneOptions,
    out: str | Path,
    *,
    command: str = "prune",
    resume: bool = False,
    force: bool = False,
    remeasure: bool = False,
    reporter: Reporter | None = None,
) -> Summary:
    """Prune a model to a budget, fine-tune it, and write everything to the directory ``out``.

    A run that was interrupted, at whatever moment, goes on with ``resume`` and ends with the
    same plan and weights; ``resume`` on a finished run gives its summary again. ``force``
    replaces an earlier run. ``command`` is the subcommand that a later ``--resume`` takes.

    Where a launcher started several processes, all call this alike: they train together, and the
    main one does the rest and tells of it.

    ``InputError`` where the configuration or ``out`` can't be used; then nothing was written.
    ``VerificationError`` where the slimmed network is not the masked original; then no network
    is published.
    """
    out = Path(out)
    reporter = reporter if reporter is not None and is_main() else Silent()
    state, record = earlier_run(config, out, command, resume=resume, force=force)
    if record is not None and state is RunState.FINISHED:
        return on_main(lambda: artifact.read_summary(out))
    with alike():
        inputs = prepare(config)
    for note in inputs.graph.notes:
        reporter.stage(note)
    with at_work(config, out, command, record) as findings:
        with alike():
            summary = Stages(config, out, inputs, findings, reporter).run()
        on_main(lambda: artifact.write_summary(out, summary))
    return summary
