"""The names of the files in a run directory."""

from __future__ import annotations

RUN = "run.json"
"""The resolved configuration and the state so far; written first."""
JOURNAL = "search.sqlite"
BASE = "base.safetensors"
BASE_CHECKPOINT = "base-checkpoint.pt"
CHECKPOINT = "checkpoint.pt"
PLAN = "plan.json"
WEIGHTS = "model.safetensors"
BUFFERS = "buffers.safetensors"
"""Buffers that are not part of a model's state; only where it has any."""
ARTIFACT = "artifact.json"
"""What ``load`` needs beside the plan and the weights, and their hashes."""
REPORT = "report.html"
SUMMARY = "summary.json"
"""The figures; written last, so it means done."""
