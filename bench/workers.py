"""Rows of many networks, each made in a worker process that is replaced when it fails."""

from __future__ import annotations

import fnmatch
import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

import runner

Examine = Callable[[str], dict[str, Any]]
"""Makes the row of a network from its name; a function of a script's top level."""


def main(
    rows: str,
    doc: str | None,
    names: list[str],
    examine: Examine,
    failure: str,
    *,
    limit: float,
    key: Mapping[str, Any] | None = None,
) -> None:
    """The command line of a bench over many networks: a row of ``results/ROWS.jsonl`` for each.

    The worker process is replaced after ``--batch`` networks, or when one has taken ``--limit``
    seconds. ``failure`` is the verdict on a network for which ``examine`` gives no row. ``key`` is
    what a row has beside the network's name; rows without it are of another measurement.
    """
    key = key or {}
    bench = runner.Bench(rows, doc, ("model", *key))
    bench.argument("--match", help="only these, and again where they have a row")
    bench.argument("--verdict", nargs="+", help="only those with these verdicts, again")
    bench.argument("--first", type=int, help="how many of the shuffled names at most")
    bench.argument("--limit", type=float, default=limit, help="seconds for a network")
    bench.argument("--batch", type=int, default=20, help="networks for a process")
    options = bench.parse()
    names = names[: options.first]
    if options.match:
        names = [name for name in names if fnmatch.fnmatch(name, options.match)]
    elif options.verdict:
        done = latest(rows)
        names = [n for n in names if n in done and done[n]["verdict"] in options.verdict]
    options.again |= bool(options.match or options.verdict)
    worker = _Worker(examine, failure, options.limit, options.batch)
    torch.set_num_threads(1)  # as in the workers, for the row
    for name in names:
        bench.row({"model": name, **key}, partial(worker.row, name))
    worker.end()


class _Worker:
    """A process that makes rows, replaced after some and when it fails."""

    def __init__(self, examine: Examine, failure: str, limit: float, batch: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._examine, self._failure = examine, failure
        self._limit, self._batch, self._left = limit, batch, 0
        self._process: Any = None

    def row(self, name: str) -> runner.Row:
        """The row of a network, or what happened instead of one."""
        if self._process is None or self._left == 0:
            self._begin()
        start = time.perf_counter()
        self._here.send(name)
        self._left -= 1
        row: runner.Row = {"verdict": self._failure}
        try:
            if self._here.poll(self._limit):
                row = self._here.recv()
            else:
                row["why"] = f"took more than {self._limit:g} s"
        except EOFError:
            row["why"] = "the process ended"
        if "peak_rss_mb" not in row:
            self._process.kill()
            self._process = None
        return row | {"seconds": round(time.perf_counter() - start, 2)}

    def _begin(self) -> None:
        self.end()
        self._here, there = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(there, self._examine, self._failure), daemon=True
        )
        self._process.start()
        there.close()
        self._left = self._batch

    def end(self) -> None:
        if self._process is not None:
            self._here.send(None)
            self._process.join()


def latest(file: str) -> dict[str, dict[str, Any]]:
    """The last row of every network."""
    return {row["model"]: row for row in runner.rows(file)}


def _serve(channel: Connection, examine: Examine, failure: str) -> None:
    torch.set_num_threads(1)
    while (name := channel.recv()) is not None:
        try:
            row = examine(name)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            text = str(error).split("\n")[0][:300]
            row = {"model": name, "verdict": failure, "why": f"{type(error).__name__}: {text}"}
            row["where"] = where
        row["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        channel.send(row)
