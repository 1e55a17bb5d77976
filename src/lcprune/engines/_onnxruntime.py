"""ONNX Runtime: ONNX, one file where the network is of an ordinary size."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from lcprune.engines._capture import captured, quiet, taken_by
from lcprune.engines._engine import Case, Engine, Opened
from lcprune.engines._onnx import as_onnx, noise
from lcprune.engines._parity import with_folded_norms
from lcprune.engines._units import Operator
from lcprune.tracing import Inputs

LARGEST = 2**31 - 2**26
"""Bytes of weights in one file: protobuf ends at 2 GiB; above they go to a second one beside it."""


class OnnxRuntime:
    """Microsoft's engine; it rewrites convolutions to blocks of channels where these fit."""

    name = "onnxruntime"
    format = "onnx"
    suffix = ".onnx"
    packages: tuple[str, ...] = ("onnx", "onnxscript", "onnxruntime")
    runtime = "onnxruntime"
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
        program = captured(with_folded_norms(model, example), example, dynamic_batch=dynamic_batch)
        state = program.state_dict.values()
        large = sum(x.numel() * x.element_size() for x in state) > LARGEST
        if int8 is None:
            _write(program, path, large)
            return
        with TemporaryDirectory(dir=path.parent) as folder:
            whole = Path(folder) / path.name
            _write(program, whole, large)
            _quantise(whole, path, int8, large)

    def open(self, path: Path, threads: int = 1) -> Opened:
        session = _session(str(path), threads)
        names = [given.name for given in session.get_inputs()]

        def run(*tensors: Tensor) -> list[Tensor]:
            arrays = {name: x.numpy() for name, x in zip(names, tensors, strict=True)}
            return [torch.from_numpy(found) for found in session.run(None, arrays)]

        return run

    def operator(self, operator: Operator, threads: int = 1) -> Callable[[], object]:
        session = _session(as_onnx(operator), threads)
        bound = session.io_binding()  # what is given and found stays in its place
        for position in operator.inputs:
            value = _imported().OrtValue.ortvalue_from_numpy(noise(operator.shapes[position]))
            bound.bind_ortvalue_input(f"t{position}", value)
        bound.bind_output(f"t{operator.output}", "cpu")
        return partial(session.run_with_iobinding, bound)


def _session(model: str | bytes, threads: int) -> Any:
    onnxruntime = _imported()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with quiet():
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _imported() -> Any:
    """The package, which from 1.29 on reports its use to Microsoft unless told not to."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    with quiet():
        getattr(onnxruntime, "disable_telemetry_events", lambda: None)()
    return onnxruntime


def _write(program: ExportedProgram, path: Path, large: bool) -> None:
    with taken_by(OnnxRuntime.format):
        # From a program that is followed already PyTorch takes no example.
        converted: Any = torch.onnx.export(
            program, (), dynamo=True, verbose=False, external_data=large
        )
        if large:
            converted.save(path, external_data=True)
            return
        proto = converted.model_proto
        _plain(proto)
        content = proto.SerializeToString()
    path.write_bytes(content)


def _quantise(whole: Path, path: Path, cases: Sequence[Case], large: bool) -> None:
    """Write a file again with 8-bit weights, a scale a channel, and 8-bit activations.

    Quantise and dequantise stand around every operator that the engine has in 8 bits (QDQ); the
    ranges of activations are the least and the largest values that were seen.
    """
    onnxruntime = _imported()
    with taken_by(OnnxRuntime.format):
        from onnxruntime.quantization import CalibrationDataReader, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def get_next(self) -> dict[str, Any] | None:
                return next(given, None)

        session = onnxruntime.InferenceSession(str(whole), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        given = (dict(zip(names, (x.numpy() for x in case), strict=True)) for case in cases)
        quantize_static(
            str(whole), str(path), Reader(), per_channel=True, use_external_data_format=large
        )


def _plain(proto: Any) -> None:
    """Take out what the exporter notes of the source, and call the batch so."""
    for node in proto.graph.node:
        del node.metadata_props[:]
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    for value in values:
        del value.metadata_props[:]
    first = [value.type.tensor_type.shape.dim[:1] for value in proto.graph.input]
    symbols = {dim.dim_param for dims in first for dim in dims if dim.dim_param}
    if len(symbols) != 1:
        return
    symbol = re.compile(rf"\b{re.escape(symbols.pop())}\b")
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = symbol.sub("batch", dim.dim_param)


ENGINE: Engine = OnnxRuntime()
