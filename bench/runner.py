"""What every bench shares: a command line, rows that are kept, and a time to stop.

A row is a measurement, appended to ``results/NAME.jsonl`` as soon as it is known, with the commit,
the machine and its threads. What has a row is not measured again, so that the same command goes on
where it was stopped:

    python bench/NAME.py … --seconds 600     # stops between two rows
    python bench/NAME.py table               # what the rows say, where a bench has a table
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]


class Bench:
    """The command line of a bench and its rows.

    ``keys`` name what tells one measurement from another; among them may be ``commit`` and
    ``machine``, for what depends on them. ``table`` prints what the rows say; it gets the
    arguments that were added to ``self.tables``.

    Example:
        bench = Bench("planning", __doc__, ("network", "commit", "machine"))
        bench.argument("networks", nargs="+")
        options = bench.parse()
        for network in options.networks:
            bench.row({"network": network}, lambda: measure(network))
    """

    def __init__(
        self,
        name: str,
        doc: str | None,
        keys: Sequence[str] = (),
        table: Callable[[argparse.Namespace], None] | None = None,
    ) -> None:
        self._name, self._keys, self._table = name, tuple(keys), table
        form = {"description": doc, "formatter_class": argparse.RawDescriptionHelpFormatter}
        self._parser = argparse.ArgumentParser(**form)
        self.argument = self._parser.add_argument
        self.error = self._parser.error
        self.tables = argparse.ArgumentParser(f"{Path(sys.argv[0]).name} table", **form)
        self._began = time.monotonic()
        self._measured = 0
        self._options = argparse.Namespace()

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Read the command line; ``table`` prints the table and ends the process."""
        given = sys.argv[1:] if arguments is None else list(arguments)
        if self._table is not None and given[:1] == ["table"]:
            self._table(self.tables.parse_args(given[1:]))
            raise SystemExit
        common = self._parser.add_argument_group("of every bench")
        common.add_argument("--seconds", type=float, help="begin no row after so many")
        common.add_argument("--threads", type=int, help="that PyTorch uses")
        common.add_argument("--again", action="store_true", help="measure what has a row, too")
        common.add_argument("--no-row", action="store_true", help="print, and keep no row")
        self._options = self._parser.parse_args(given)
        if self._options.threads:
            torch.set_num_threads(self._options.threads)
        return self._options

    def row(self, key: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> None:
        """Measure what has no row yet, and append its row: the key, and what was found.

        Ends the process instead when its time is over.
        """
        if self._name_of(key) in self._known and not self._options.again:
            return
        limit, taken = self._options.seconds, time.monotonic() - self._began
        if limit is not None and taken >= limit:
            print(f"stopped after {taken:.0f} s, {self._measured} rows; the same command goes on")
            raise SystemExit
        row = {**key, **measure()}
        self._measured += 1
        print(json.dumps(row), flush=True)
        if not self._options.no_row:
            append(self._name, row)

    @cached_property
    def _known(self) -> set[str | None]:
        """What was measured before this process."""
        return {self._name_of(row) for row in rows(self._name)} - {None}

    def _name_of(self, row: Mapping[str, Any]) -> str | None:
        full = {**where(), **row}
        return json.dumps([full.get(key) for key in self._keys]) if self._keys else None


def append(name: str, row: Mapping[str, Any]) -> None:
    """Append a row to ``results/NAME.jsonl`` with the commit, the processor and the threads."""
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, **where()}) + "\n")


def rows(name: str) -> Iterator[Row]:
    """The rows of ``results/NAME.jsonl``."""
    path = RESULTS / f"{name}.jsonl"
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def where() -> Row:
    """The commit, the machine and PyTorch's version, as each row has them."""
    return {"commit": commit(), "machine": machine(), "torch": torch.__version__}


@cache
def commit() -> str:
    """The commit that is checked out, with a ``+`` where the package differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=Path(__file__).parent, text=True)

    try:
        changed = git("status", "--porcelain", "../src").strip()
        return git("rev-parse", "--short", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """The processor, the cores and the threads that PyTorch uses."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [n for n in cpuinfo.read_text().splitlines() if n.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    isa = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {isa}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def markdown(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table of a page."""
    return "\n".join(
        f"| {' | '.join(map(str, line))} |" for line in [head, ["---"] * len(head), *lines]
    )
