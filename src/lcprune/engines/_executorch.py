"""ExecuTorch: a program for phones and microcontrollers, on the CPU by XNNPACK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_unflatten

from lcprune.engines._capture import captured, quiet, taken_by
from lcprune.engines._engine import Case, Engine, Opened, input_tensors
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
    int8_packages: tuple[str, ...] = ()

    def write(
        self,
        model: nn.Module,
        example: Inputs,
        path: Path,
        *,
        dynamic_batch: bool = False,
        int8: Sequence[Case] | None = None,
    ) -> None:
        if dynamic_batch:
            raise InputError(
                "executorch plans its memory for one batch size, expected no dynamic batch"
            )
        program = captured(model, example, dynamic_batch=False)
        if int8 is not None:
            program = _quantised(program, example, int8)
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


def _quantised(program: ExportedProgram, example: Inputs, cases: Sequence[Case]) -> ExportedProgram:
    """The program in 8 bits as XNNPACK has them, a scale a channel of the weights."""
    with taken_by(ExecuTorch.format):
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantizer = xnnpack_quantizer.XNNPACKQuantizer()
        quantizer.set_global(
            xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
        )
        observed = prepare_pt2e(program.module(), quantizer)
        structure = program.call_spec.in_spec
        with torch.no_grad():
            for case in cases:
                args, kwargs = tree_unflatten(case, structure)
                observed(*args, **kwargs)
        args, kwargs = tree_unflatten(input_tensors(example), structure)
        return captured(convert_pt2e(observed), Inputs(*args, **kwargs), dynamic_batch=False)


ENGINE: Engine = ExecuTorch()
