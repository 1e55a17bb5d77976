"""ExecuTorch: a program for phones and microcontrollers, on the CPU by XNNPACK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lcprune.engines._capture import captured, quiet, taken_by
from lcprune.engines._engine import Engine, Opened
from lcprune.engines._units import Operator
from lcprune.errors import InputError
from lcprune.tracing import Inputs


class ExecuTorch:
    """PyTorch's engine for devices; XNNPACK folds batch norms itself.

    The memory is planned when the program is made, so the batch is fixed.
    """

    name = "executorch"
    format = "executorch"
    suffix = ".pte"
    packages: tuple[str, ...] = ("executorch",)
    runtime = "executorch"

    def write(
        self, model: nn.Module, example: Inputs, path: Path, *, dynamic_batch: bool = False
    ) -> None:
        if dynamic_batch:
            raise InputError(
                "executorch plans its memory for one batch size, expected no dynamic batch"
            )
        program = captured(model, example, dynamic_batch=False)
        with taken_by(self.format):
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
                XnnpackPartitioner,
            )
            from executorch.exir import to_edge_transform_and_lower

            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            content = lowered.to_executorch().buffer
        path.write_bytes(content)

    def open(self, path: Path, threads: int = 1) -> Opened:
        with quiet():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

            portable_lib._unsafe_reset_threadpool(threads)  # one pool for the whole process
            program: Any = Runtime.get().load_program(path)
            method = program.load_method("forward")

        def run(*tensors: Tensor) -> list[Tensor]:
            # The method writes over its outputs when it runs again.
            return [found.clone() for found in method.execute(list(tensors))]

        return run

    def operator(self, operator: Operator, threads: int = 1) -> Callable[[], object]:
        raise InputError(
            "executorch makes a program of one operator in seconds, so there is no table of its"
            " times, expected one of the other engines"
        )


ENGINE: Engine = ExecuTorch()
