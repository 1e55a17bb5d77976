"""What an inference engine is to all others, and where it comes from."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lcprune._checks import choice
from lcprune.engines import ENGINES, INT8
from lcprune.engines._units import Operator
from lcprune.errors import InputError
from lcprune.tracing import Inputs

Opened = Callable[..., list[Tensor]]
"""A network on an engine: all tensors of its inputs, in their order, to all of its outputs."""

Case = list[Tensor]
"""The tensors of the inputs of a call, or of its outputs."""


class Engine(Protocol):
    """A program that runs networks on the CPU, and the files that it runs.

    ``write`` saves a network in eval mode, and says in one line (``ModelError``) what it can't
    take; with ``dynamic_batch`` the file takes any number of samples, and with ``int8``, the inputs
    of calls to calibrate on, it computes in 8 bits as far as the engine can. ``open`` reads such a
    file; what it gives is called with the tensors of the inputs and runs on so many ``threads``. A
    file is parsed by the engine's own parser: open none of a stranger.

    ``operator`` makes ready, in milliseconds, a few operators in a row with any weights and inputs:
    what it gives runs them once, and does as little else as can be. ``ModelError`` for operators
    that it can't. ``packages`` are what it needs, ``int8_packages`` what writing in int8 needs as
    well, ``runtime`` the one that computes, whose version times depend on.
    """

    name: str
    format: str
    suffix: str
    packages: tuple[str, ...]
    runtime: str
    int8_packages: tuple[str, ...]

    def write(
        self,
        model: nn.Module,
        example: Inputs,
        path: Path,
        *,
        dynamic_batch: bool = False,
        int8: Sequence[Case] | None = None,
    ) -> None: ...

    def open(self, path: Path, threads: int = 1) -> Opened: ...

    def operator(self, operator: Operator, threads: int = 1) -> Callable[[], object]: ...


@dataclass(frozen=True)
class Machine:
    """What computes, and with which versions: what times depend on."""

    processor: str
    versions: Mapping[str, str]


def machine(engine: Engine) -> Machine:
    """This machine, as far as an engine's times depend on it."""
    return Machine(processor(), {engine.runtime: metadata.version(engine.runtime)})


def processor() -> str:
    """The name of this machine's processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def engine_named(name: str, *, int8: bool = False) -> Engine:
    """The engine of that name, to write files in ``int8`` where that is said.

    ``InputError`` where there is none, its packages are missing, or its files are never in int8.
    """
    module = importlib.import_module(f"lcprune.engines._{choice('engine', name, ENGINES)}")
    engine: Engine = module.ENGINE
    if int8 and engine.format not in INT8:
        raise InputError(
            f"{engine.format} files are not written in int8, expected one of {', '.join(INT8)}"
        )
    needed = (*engine.packages, *(engine.int8_packages if int8 else ()))
    missing = [package for package in needed if not _is_there(package)]
    if missing:
        raise InputError(
            f"the engine {name} needs {' and '.join(missing)}{' for int8' if int8 else ''}, "
            f"expected after: pip install 'lcprune[{name}]'"
        )
    return engine


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def input_tensors(inputs: Inputs) -> list[Tensor]:
    """All tensors of the inputs, in the order in which an opened network takes them."""
    return _tensors((inputs.args, dict(inputs.kwargs)))


def output_tensors(outputs: Any) -> list[Tensor]:
    """All tensors of what a model returns, in the order in which an engine gives them."""
    return _tensors(outputs)


def _tensors(values: Any) -> list[Tensor]:
    # In the order of torch.export, whose function this is.
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
