"""What every format makes of a network: parity, seconds, bytes, int8. A row for each.

    python bench/export.py --shared DIR --cifar DIR       # with CIFAR-10, int8 and its accuracy
    python bench/export.py --formats executorch           # where ExecuTorch is installed
    python bench/export.py table

Parity is the largest difference from PyTorch relative to an output's largest value, in a fresh
process, whose start is part of the seconds. Accuracies are of the engine at batch 1, with the
published weights of a CIFAR-10 network; the others are as they were built.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import runner
from lcprune.data import Data, load_data
from lcprune.engines import (
    FORMATS,
    INT8,
    SUFFIXES,
    Opened,
    calibration_images,
    engine_named,
    export,
)
from lcprune.models import build, load_weights
from lcprune.training import evaluate_top1

KEYS = ("network", "format", "int8")
CIFAR = {
    "cifar_resnet56": "cifar10_resnet56.safetensors",
    "cifar_mobilenet_v2": "cifar10_mobilenet_v2.safetensors",
}
LARGE = ("torchvision/resnet50", "torchvision/lraspp")
"""At 224x224."""


def main() -> None:
    bench = runner.Bench("export", __doc__, KEYS, table)
    bench.argument("--shared", type=Path, metavar="DIR", help="holds weights/")
    bench.argument("--cifar", metavar="DIR")
    bench.argument("--networks", nargs="+", default=[*CIFAR, *LARGE], choices=[*CIFAR, *LARGE])
    bench.argument("--formats", nargs="+", default=["pt2", "onnx", "openvino"], choices=FORMATS)
    options = bench.parse()
    for network in options.networks:
        for format in options.formats:
            for int8 in (False, True):
                if not int8 or (format in INT8 and network in CIFAR and options.cifar):
                    key = {"network": network, "format": format, "int8": int8}
                    bench.row(key, lambda key=key: measure(options, **key))


def measure(options: argparse.Namespace, network: str, format: str, int8: bool) -> dict[str, Any]:
    data = load_data(f"cifar10:{options.cifar}") if network in CIFAR and options.cifar else None
    model, example = made(options, network)
    how: dict[str, Any] = {"format": format, "example_input": example}
    if int8:
        assert data is not None
        how["int8"] = [calibration_images(data)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{SUFFIXES[format]}"
        written = export(model, path, **how)
        found: dict[str, Any] = {
            "engine": written.engine,
            "error": float(f"{written.error:.2g}"),
            "seconds": round(written.seconds, 1),
            "bytes": written.bytes,
            "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        }
        if written.agreement is not None:
            found["agreement"] = round(written.agreement, 4)
        if data is not None:
            opened = engine_named(written.engine).open(path)
            began = time.perf_counter()
            found["top1"] = round(top1(opened, data), 2)
            found["test_seconds"] = round(time.perf_counter() - began, 1)
    return found


def made(options: argparse.Namespace, network: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    if network in CIFAR:
        model = build(network, classes=10, input_shape=(3, 32, 32))
        if options.shared is not None:
            load_weights(model, str(options.shared / "weights" / CIFAR[network]), network)
        return model.eval(), torch.randn(1, 3, 32, 32, generator=generator)
    if network == "torchvision/lraspp":
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large

        model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    else:
        model = build(network, classes=None, input_shape=(3, 224, 224))
    return model.eval(), torch.randn(1, 3, 224, 224, generator=generator)


def top1(opened: Opened, data: Data) -> float:
    class OnEngine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return opened(x)[0]

    return evaluate_top1(OnEngine(), data.test, data, batch=1)


def table(_: argparse.Namespace) -> None:
    rows = {tuple(row[key] for key in KEYS): row for row in runner.rows("export")}
    head = ["network", "format", "difference from PyTorch", "seconds", "MB", "top-1, %"]
    lines = []
    for (network, format, int8), row in rows.items():
        error = f"{row['error']:.0e}" if not int8 else f"{row['error']:.1%} rms"
        accuracy = f"{row['top1']:.2f}" if "top1" in row else "–"
        name = f"{format}, int8" if int8 else format
        size = f"{row['bytes'] / 1e6:.2f}"
        lines.append([network, name, error, f"{row['seconds']:.0f}", size, accuracy])
    print(runner.markdown(head, lines))


if __name__ == "__main__":
    main()
