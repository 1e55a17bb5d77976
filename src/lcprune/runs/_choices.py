"""What is chosen by measurement, kept for each machine and network.

A stopwatch on a busy machine decides otherwise than on a quiet one, and another number format
gives other losses. So a choice is measured once and then taken from a cache: the same command
gives the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lcprune import engines
from lcprune._checks import of_type, path
from lcprune._files import make_directory, read_sealed_json, sealed_json, write_text
from lcprune.artifact import versions
from lcprune.errors import InputError
from lcprune.fitness import Precision

T = TypeVar("T")


class Choices:
    """The choices of this machine, in ``folder``; ``remeasure`` makes each anew.

    Every choice is a file of its own, written whole, so that several processes don't meet. One
    that is damaged or can't be written is as if it weren't there.
    """

    def __init__(self, folder: Path | None = None, *, remeasure: bool = False) -> None:
        self._folder = cache_folder() / "choices" if folder is None else folder
        self.remeasure = remeasure

    def choose(
        self,
        kind: str,
        model: nn.Module,
        inputs: Tensor,
        measure: Callable[[], Precision],
    ) -> Precision:
        """What ``measure`` returns, or returned for such a model and inputs before."""
        return self.once(choice_key(kind, model, inputs), Precision, measure)

    def once(self, key: Mapping[str, Any], kind: type[T], measure: Callable[[], T]) -> T:
        """What ``measure`` returns, a dataclass, or returned for that key (JSON) before."""
        file = self.file(key)
        found = None if self.remeasure else _read(file, key, kind)
        if found is not None:
            return found
        chosen = measure()
        # Another process may have measured meanwhile: the first choice holds.
        found = None if self.remeasure else _read(file, key, kind)
        if found is not None:
            return found
        with suppress(InputError):
            make_directory(file.parent)
            values: Any = chosen
            write_text(file, sealed_json({"key": key, "choice": asdict(values)}))
        return chosen

    def file(self, key: Mapping[str, Any]) -> Path:
        """Where what belongs to a key is kept."""
        return self._folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"


def cache_folder() -> Path:
    """``LCPRUNE_CACHE``, or ``lcprune`` in the user's cache folder (``XDG_CACHE_HOME``)."""
    own = os.environ.get("LCPRUNE_CACHE")
    if own:
        return path("LCPRUNE_CACHE", own)
    return path("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lcprune"


def choice_key(kind: str, model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """All that a choice may depend on: JSON."""
    shapes = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        shapes.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    return {
        "kind": kind,
        "processor": processor(inputs.device),
        "capability": _capability(inputs.device),
        "threads": torch.get_num_threads(),
        "device": str(inputs.device),
        "torch": torch.__version__,
        "lcprune": versions().get("lcprune"),
        "network": f"{type(model).__name__} {shapes.hexdigest()}",
        "inputs": list(inputs.shape),
    }


def processor(device: torch.device) -> str:
    """The name of what computes on ``device``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return engines.processor()


def _capability(device: torch.device) -> str:
    if device.type == "cuda":
        return ".".join(map(str, torch.cuda.get_device_capability(device)))
    return torch.backends.cpu.get_cpu_capability()


def _read(file: Path, key: Mapping[str, Any], kind: type[T]) -> T | None:
    with suppress(InputError):
        raw = read_sealed_json(file)
        choice: T = of_type("choice", raw.get("choice"), kind)
        if raw.get("key") == key:
            return choice
    return None
