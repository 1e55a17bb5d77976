"""The whole job on data that is always there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEMO_DIRECTORY = Path("runs/demo")
"""Where the demo goes when it is not told; it may be overwritten."""

DEMO: Mapping[str, Any] = {
    "model": "digits_resnet",
    "data": "digits",
    "weights": "random",
    "base_epochs": 20,
    "budget": ("macs=30%",),
    "trials": 200,
    "recalibrate_images": 400,
    "fitness_images": 800,
    "finetune_epochs": 20,
    "train_dtype": "float32",  # a measurement would take longer than it saves
    "batch_size": 64,
}
"""Scikit-learn's digits: about a minute on two cores."""
