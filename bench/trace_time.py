"""How long tracing takes, as a ratio to a forward pass of the same network in the same process.

    python bench/trace_time.py
    python bench/trace_time.py table

Depth must cost in proportion: a layer of a ResNet-1202 takes as long as one of a ResNet-56.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.densenet import DenseNet

import runner
from lcprune.models import cifar_resnet
from lcprune.tracing import trace

KEYS = ("network", "repeats", "commit", "machine")
Build = Callable[[], tuple[nn.Module, tuple[int, ...]]]


def _resnet(depth: int) -> Build:
    return lambda: (cifar_resnet(depth), (1, 3, 32, 32))


def _densenet(blocks: tuple[int, int, int, int]) -> Build:
    return lambda: (DenseNet(32, blocks, 64), (1, 3, 224, 224))


def _torchvision(name: str) -> Build:
    return lambda: (get_model(name, weights=None), (1, 3, 224, 224))


NETWORKS: dict[str, Build] = {
    "resnet50": _torchvision("resnet50"),
    "mobilenet_v2": _torchvision("mobilenet_v2"),
    "convnext_tiny": _torchvision("convnext_tiny"),
    **{f"cifar_resnet{depth}": _resnet(depth) for depth in (56, 110, 1202)},
    "densenet121": _densenet((6, 12, 24, 16)),
    "densenet169": _densenet((6, 12, 32, 32)),
    "densenet201": _densenet((6, 12, 48, 32)),
    "densenet264": _densenet((6, 12, 64, 48)),
}


def main() -> None:
    bench = runner.Bench("trace_time", __doc__, KEYS, table)
    bench.argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    bench.argument("--repeats", type=int, default=3)
    options = bench.parse()
    for name in options.networks:
        key = {"network": name, "repeats": options.repeats}
        bench.row(key, partial(measure, name, options.repeats))


def measure(name: str, repeats: int) -> runner.Row:
    model, shape = NETWORKS[name]()
    model.eval()
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(images)  # what is only paid once is no part of either
    forwards, traces = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        with torch.no_grad():
            model(images)
        forwards.append(time.perf_counter() - start)
        start = time.perf_counter()
        graph = trace(model, images)
        traces.append(time.perf_counter() - start)
    layers = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    return {
        "layers": layers,
        "groups": graph.prunable,
        "forward_seconds": round(min(forwards), 4),
        "trace_seconds": round(min(traces), 4),
        "ratio": round(min(traces) / min(forwards), 2),
        "ms_per_layer": round(1000 * min(traces) / layers, 2),
    }


def table(_: argparse.Namespace) -> None:
    columns = ("network", "layers", "trace_seconds", "forward_seconds", "ratio", "ms_per_layer")
    lines = [[row[c] for c in (*columns, "commit")] for row in runner.rows("trace_time")]
    print(runner.markdown([*columns, "commit"], lines))


if __name__ == "__main__":
    main()
