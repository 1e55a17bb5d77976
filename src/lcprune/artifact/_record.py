"""``run.json``: what a run is asked to do, and what it found out so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lcprune._files import write_text
from lcprune.artifact import _layout as layout
from lcprune.artifact._checked import checked_json, read_checked
from lcprune.artifact._versions import versions
from lcprune.errors import RunError

KIND = "lcprune run"
"""How ``run.json`` is told from files of that name that others write."""


@dataclass(frozen=True)
class RunRecord:
    """The contents of ``run.json``.

    ``command`` is the subcommand that began the run, ``configuration`` what decides its result,
    ``state`` what it found out on the way and needs again when it goes on.
    """

    command: str
    configuration: Mapping[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The record as JSON text with a checksum of itself."""
        return checked_json(
            {
                "kind": KIND,
                "command": self.command,
                "configuration": dict(self.configuration),
                "state": dict(self.state),
                "versions": versions(),
            }
        )

    def first_difference(self, configuration: Mapping[str, Any]) -> str | None:
        """The first key whose value is not the stored one; the order is that of the run."""
        for key in [*self.configuration, *configuration]:
            if self.configuration.get(key) != configuration.get(key):
                return key
        return None


def read_run(directory: Path) -> RunRecord:
    """The record of a run; ``RunError`` where the directory holds none that can be read."""
    path = directory / layout.RUN
    raw = read_checked(path, RunError)
    if raw.get("kind") != KIND:
        raise RunError(f"{path} was not written by lcprune")
    command, configuration, state = (raw.get(k) for k in ("command", "configuration", "state"))
    if not (
        isinstance(command, str) and isinstance(configuration, dict) and isinstance(state, dict)
    ):
        raise RunError(f"{path} is damaged: expected a command, its configuration and a state")
    return RunRecord(command, configuration, state)


def update_run(directory: Path, record: RunRecord, **state: Any) -> RunRecord:
    """Add to the state of a run, on disk and in the record that is returned."""
    record = replace(record, state={**record.state, **state})
    write_text(directory / layout.RUN, record.to_json())
    return record
