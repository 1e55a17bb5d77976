"""What a run finds out once and keeps for the process that goes on with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lcprune import artifact
from lcprune.artifact import RunRecord
from lcprune.errors import RunError
from lcprune.training import on_main

Value = TypeVar("Value")


class Findings:
    """The state in a directory's ``run.json``: choices by measurement, accuracies, hashes."""

    def __init__(self, out: Path, record: RunRecord) -> None:
        self._out = out
        self._record = record

    def once(self, key: str, find: Callable[[], Value]) -> Value:
        """What ``find`` returns, by an earlier run of the process or now.

        Of several processes at work on the run, the main one finds it for all.
        """

        def known() -> Value:
            if key not in self._record.state:
                self._record = artifact.update_run(self._out, self._record, **{key: find()})
            value: Value = self._record.state[key]
            return value

        return on_main(known)

    def same(self, key: str, value: str, what: str) -> str:
        """Keep a hash of what the run works on; ``RunError`` where a resumed run has another."""
        if self.once(key, lambda: value) != value:
            raise RunError(f"can't resume: the {what} are not those that the run began with")
        return value
