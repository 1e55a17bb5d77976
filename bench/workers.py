"""Rows of many networks, each made in a worker process that is replaced when it fails."""

from __future__ import annotations

import argparse
import fnmatch
import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

import record

Examine = Callable[[str], dict[str, Any]]
"""Makes the row of a network from its name; a function of a script's top level."""


def main(
    doc: str | None, names: list[str], examine: Examine, failure: str, *, limit: float, rows: str
) -> None:
    """The command line of a bench over many networks; those that have a row are left out."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--match", help="only these, and again where they have a row")
    parser.add_argument("--verdict", nargs="+", help="only those with these verdicts, again")
    parser.add_argument("--first", type=int, help="how many of the shuffled names at most")
    parser.add_argument("--limit", type=float, default=limit, help="seconds for a network")
    parser.add_argument("--batch", type=int, default=20, help="networks for a process")
    parser.add_argument("--rows", default=rows, help="the file of rows in results/")
    options = parser.parse_args()
    done = latest(options.rows)
    names = names[: options.first]
    if options.match:
        names = [name for name in names if fnmatch.fnmatch(name, options.match)]
    elif options.verdict:
        names = [n for n in names if n in done and done[n]["verdict"] in options.verdict]
    else:
        names = [name for name in names if name not in done]
    run(names, examine, failure, options.limit, options.batch, options.rows)


def run(
    names: Iterable[str], examine: Examine, failure: str, limit: float, batch: int, file: str
) -> None:
    """Append a row for every network to ``results/FILE.jsonl``, as soon as it is there.

    The worker process is replaced after ``batch`` networks, or when one has taken ``limit``
    seconds. ``failure`` is the verdict on a network for which ``examine`` gives no row.
    """
    context = multiprocessing.get_context("spawn")
    process, here, left = None, None, 0
    for name in names:
        if process is None or left == 0:
            if process is not None:
                here.send(None)
                process.join()
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, examine, failure), daemon=True)
            process.start()
            there.close()
            left = batch
        start = time.perf_counter()
        here.send(name)
        why = None
        try:
            if here.poll(limit):
                row = here.recv()
            else:
                why = f"took more than {limit:g} s"
        except EOFError:
            why = "the process ended"
        left -= 1
        if why is not None:
            row = {"model": name, "verdict": failure, "why": why}
            process.kill()
            process = None
        row["seconds"] = round(time.perf_counter() - start, 2)
        record.append(file, row)
        print(f"{row['verdict']:13}{row.get('coverage') or '':>7} {row['seconds']:>6}s {name}  "
              f"{row.get('why') or row.get('error')}", flush=True)  # fmt: skip
    if process is not None:
        here.send(None)
        process.join()


def latest(file: str) -> dict[str, dict[str, Any]]:
    """The last row of every network."""
    return {row["model"]: row for row in record.rows(file)}


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
