"""Rows of measurements: where they go, and what they say about the machine and the code."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def append(name: str, row: Mapping[str, Any]) -> None:
    """Append a row to ``results/NAME.jsonl`` with the commit, the processor and the threads."""
    RESULTS.mkdir(exist_ok=True)
    full = {**row, "commit": commit(), "machine": machine(), "torch": torch.__version__}
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(full) + "\n")


def rows(name: str) -> Iterator[dict[str, Any]]:
    """The rows of ``results/NAME.jsonl``."""
    path = RESULTS / f"{name}.jsonl"
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def commit() -> str:
    """The commit that is checked out, with a ``+`` where the package differs from it."""
    here = Path(__file__).parent
    run = {"cwd": here, "capture_output": True, "text": True, "check": True}
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **run).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "../src"], **run).stdout.strip()
    return head + ("+" if changed else "")


def machine() -> str:
    """The processor, the cores and the threads that PyTorch uses."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [n for n in cpuinfo.read_text().splitlines() if n.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    isa = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {isa}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
