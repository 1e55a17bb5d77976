"""OpenVINO: its own XML, with the weights in a second file beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.engines._capture import captured, quiet, taken_by
from lcprune.engines._engine import Case, Engine, Opened, input_tensors
from lcprune.engines._onnx import as_onnx, noise
from lcprune.engines._units import Operator
from lcprune.tracing import Inputs


class OpenVino:
    """Intel's engine; it folds batch norms itself."""

    name = "openvino"
    format = "openvino"
    suffix = ".xml"
    packages: tuple[str, ...] = ("openvino",)
    runtime = "openvino"
    int8_packages: tuple[str, ...] = ("nncf",)

    def write(
        self,
        model: nn.Module,
        example: Inputs,
        path: Path,
        *,
        dynamic_batch: bool = False,
        int8: Sequence[Case] | None = None,
    ) -> None:
        program = captured(model, example, dynamic_batch=dynamic_batch)
        with taken_by(self.format):
            openvino = _imported()
            converted = openvino.convert_model(program)
            converted.reshape(
                {
                    number: [
                        -1 if dynamic_batch and not dim and size == example.batch else size
                        for dim, size in enumerate(tensor.shape)
                    ]
                    for number, tensor in enumerate(input_tensors(example))
                }
            )
            if int8 is not None:
                converted = _quantised(converted, int8)
            openvino.save_model(converted, path, compress_to_fp16=False)

    def open(self, path: Path, threads: int = 1) -> Opened:
        openvino = _imported()
        with quiet():
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(path), "CPU", _settings(threads))
        request = compiled.create_infer_request()

        def run(*tensors: Tensor) -> list[Tensor]:
            found = request.infer([x.numpy() for x in tensors], share_inputs=True)
            # The request writes over its outputs when it runs again.
            return [torch.from_numpy(found[output].copy()) for output in compiled.outputs]

        return run

    def operator(self, operator: Operator, threads: int = 1) -> Callable[[], object]:
        openvino = _imported()
        with quiet():
            core = _core()
            compiled = core.compile_model(
                core.read_model(as_onnx(operator)), "CPU", _settings(threads)
            )
        request = compiled.create_infer_request()
        for number, position in enumerate(operator.inputs):
            request.set_input_tensor(
                number, openvino.Tensor(noise(operator.shapes[position]), shared_memory=False)
            )

        def run() -> None:
            request.start_async()
            request.wait()

        return run


def _settings(threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # where there are bfloat16 units too
    }


@cache
def _core() -> Any:
    return _imported().Core()


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Within, ``openvino`` is imported without the package that reports its use to Intel.

    It does so on import, and only a file in the user's home would stop it.
    """
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _imported() -> Any:
    with _without_telemetry(), quiet():
        import openvino
        import openvino.tools.ovc.convert_impl  # the conversion's own look at that package
    return openvino


def _quantised(model: Any, cases: Sequence[Case]) -> Any:
    """The model in 8 bits as far as the engine has it, a scale a channel of the weights."""
    with _without_telemetry():  # as OpenVINO itself
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    dataset = nncf.Dataset([[x.numpy() for x in case] for case in cases])
    # Its own ranges are means of every sample's: of a network whose samples differ they cut off
    # most. With these the outputs of a MobileNetV2 are off by half as much.
    ranges = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
    )
    return nncf.quantize(model, dataset, subset_size=len(cases), advanced_parameters=ranges)


ENGINE: Engine = OpenVino()
