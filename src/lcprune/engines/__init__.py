"""Inference engines: the files that they run, what they compute, and how long they take.

An engine is a value with the face of ``Engine``, one a file. Its package is imported when it is
used, and a missing one is told in a line.
"""

from __future__ import annotations

from lcprune._lazy import lazily

TYPE_CHECKING = False  # to type checkers it is true; `typing` itself takes milliseconds to import
if TYPE_CHECKING:
    from lcprune.engines._calibration import calibration_images
    from lcprune.engines._engine import Engine, Machine, Opened, engine_named, machine, processor
    from lcprune.engines._export import Exported, export
    from lcprune.engines._measure import measure
    from lcprune.engines._stairs import Stairs, stairs
    from lcprune.engines._table import LatencyTable
    from lcprune.engines._timing import Timing, time_in_turns, with_threads

ENGINES = ("pytorch", "onnxruntime", "openvino", "executorch")
"""The engines that there are, by name."""

FORMATS = {
    "pt2": "pytorch",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "executorch": "executorch",
}
"""The formats that there are, and the engine that runs each."""

SUFFIXES = {"pt2": ".pt2", "onnx": ".onnx", "openvino": ".xml", "executorch": ".pte"}
"""How the names of files end, by format."""

INT8 = ("onnx", "openvino", "executorch")
"""The formats that can be written in int8."""

__all__ = [
    "ENGINES",
    "FORMATS",
    "INT8",
    "SUFFIXES",
    "Engine",
    "Exported",
    "LatencyTable",
    "Machine",
    "Opened",
    "Stairs",
    "Timing",
    "calibration_images",
    "engine_named",
    "export",
    "machine",
    "measure",
    "processor",
    "stairs",
    "time_in_turns",
    "with_threads",
]

# What needs PyTorch is imported when it is asked for: the options of the command line are not it.
_HOMES = {
    "._calibration": "calibration_images",
    "._engine": "Engine Machine Opened engine_named machine processor",
    "._export": "Exported export",
    "._measure": "measure",
    "._stairs": "Stairs stairs",
    "._table": "LatencyTable",
    "._timing": "Timing time_in_turns with_threads",
}
__getattr__, __dir__ = lazily(__name__, __all__, _HOMES)
