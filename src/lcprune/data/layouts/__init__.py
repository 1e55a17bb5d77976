"""Data sets by name, and the layouts in which they lie on a disk."""

from lcprune.data.layouts._load import load_data, runs_code

__all__ = ["load_data", "runs_code"]
