"""Peak bytes of activations: predicted, replayed, planned by ExecuTorch. A row a network.

    python bench/memory.py                    # the last column where ExecuTorch is installed
    python bench/memory.py table

Every network is taken whole, and cut to half the peak (``activations=50%``, filters by L2). A
replay runs the network, really cut, and follows the storages that every operator touches: it knows
nothing of a trace. ExecuTorch's plan is that of the program without a delegate, which has an
operator of its own for all that is written in place: so there is a replay of this program too, and
what the plan has beyond it are alignments and gaps between buffers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import runner
from lcprune.cost import Budget, CostModel
from lcprune.criteria import saliency
from lcprune.models import build, cifar_resnet
from lcprune.ranking import PlanBuilder, rank
from lcprune.slimming import slim
from lcprune.testing import randomise
from lcprune.tracing import trace

KEYS = ("network", "cut", "planner")
BUDGET = "50%"


def of_torchvision(name: str) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        from torchvision import models

        options = {"init_weights": False} if name == "googlenet" else {}
        model: nn.Module = models.get_model(name, weights=None, **options)
        return model

    return made


def narrow() -> nn.Module:
    """A ResNet-14 with 11, 22 and 45 channels, cut out of the whole one."""
    model = cifar_resnet(14).eval()
    graph = trace(model, torch.randn(1, 3, 32, 32))
    keep = np.zeros(graph.prunable, dtype=bool)
    for family in graph.families:
        keep[list(family.groups[: round(len(family.groups) * 11.2 / 16)])] = True
    return slim(model, PlanBuilder(graph).plan(keep))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet14 (16, 32, 64)": (lambda: cifar_resnet(14), 32),
    "resnet14 (11, 22, 45)": (narrow, 32),
    "cifar_resnet56": (lambda: cifar_resnet(56), 32),
    "cifar_mobilenet_v2": (
        lambda: build("cifar_mobilenet_v2", classes=10, input_shape=(3, 32, 32)),
        32,
    ),
    **{
        name: (of_torchvision(name), 64)
        for name in (
            "vgg11_bn",
            "squeezenet1_1",
            "mobilenet_v3_small",
            "shufflenet_v2_x1_0",
            "regnet_y_400mf",
            "efficientnet_b0",
            "googlenet",
            "densenet121",
        )
    },
}
"""Each with the side of its input."""


def main() -> None:
    bench = runner.Bench("memory", __doc__, KEYS, table)
    bench.argument("--networks", nargs="+", default=[*NETWORKS], choices=[*NETWORKS])
    options = bench.parse()
    planner = "executorch" if find_spec("executorch") else None
    for network in options.networks:
        for cut in (None, BUDGET):
            key = {"network": network, "cut": cut, "planner": planner}
            bench.row(key, lambda network=network, cut=cut: measure(network, cut, planner))


def measure(network: str, cut: str | None, planner: str | None) -> dict[str, Any]:
    make, side = NETWORKS[network]
    model = randomise(make().eval(), 0)
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    graph = trace(model, example)
    predicted = whole = CostModel(graph, ["activations"]).evaluate()["activations"]
    if cut is not None:
        plan = rank(graph, saliency(model, graph, "l2"), Budget(activations=cut))
        model, predicted = slim(model, plan).eval(), plan.cost["activations"]
    program = torch.export.export(model, (example,)).run_decompositions()
    found = {
        "side": side,
        "share": round(predicted / whole, 4),
        "predicted": predicted,
        "replayed": replayed(model, example),
        "functional": replayed(program.module(), example),
    }
    if planner:
        found["planned"] = planned(torch.export.export(model, (example,)))
    return found


class Replay(TorchDispatchMode):
    """From which operator to which every storage is touched; one that is only read is a state."""

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.step = 0
        self.life: dict[int, list[int]] = {}
        self.size: dict[int, int] = {}
        self._held: list[Any] = []  # or an address would be given away again
        self.touch(example, 0)
        self.made(example)

    def touch(self, tensor: Tensor, step: int) -> None:
        self._held.append(tensor)
        self.life.setdefault(tensor.untyped_storage()._cdata, [step, step])[1] = step

    def made(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.size.setdefault(storage._cdata, storage.nbytes())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, Tensor)]
        states = {s for x in read if (s := x.untyped_storage()._cdata) not in self.size}
        out = func(*args, **(kwargs or {}))
        written = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        for tensor in (*read, *written):
            self.touch(tensor, self.step)
        for tensor in written:
            if tensor.untyped_storage()._cdata not in states:
                self.made(tensor)
        self.step += 1
        return out


def replayed(model: nn.Module, example: Tensor) -> int:
    """The largest sum of bytes of storages, states apart, that are alive at one operator."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    example = example.clone()
    try:
        with torch.no_grad(), Replay(example) as seen:
            outputs = [x for x in tree_leaves(model(example)) if isinstance(x, Tensor)]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    for tensor in outputs:
        seen.touch(tensor, seen.step - 1)
    alive = [0] * seen.step
    for storage, (first, last) in seen.life.items():
        for step in range(first, last + 1):
            alive[step] += seen.size.get(storage, 0)
    return max(alive)


def planned(program: torch.export.ExportedProgram) -> int:
    """Bytes that ExecuTorch plans for a program without a delegate."""
    from executorch.exir import EdgeCompileConfig, to_edge

    # Else a linear layer is a product with its weight transposed, and the copy is in the plan.
    whole = EdgeCompileConfig(preserve_ops=[torch.ops.aten.linear.default])
    edge = to_edge(program, compile_config=whole)
    plan = edge.to_executorch().executorch_program.execution_plan[0]
    return sum(plan.non_const_buffer_sizes)


def table(_: argparse.Namespace) -> None:
    rows = {tuple(row[key] for key in KEYS): row for row in runner.rows("memory")}
    head = [
        "network",
        "cut",
        "predicted",
        "replayed",
        "nothing in place",
        "ExecuTorch's plan",
        "why",
    ]
    lines = []
    for row in rows.values():
        plan = row.get("planned")
        bytes_ = [row["predicted"], row["replayed"], row["functional"]]
        cells = [f"{n:,}" for n in bytes_] + [f"{plan:,}" if plan is not None else "–"]
        cut = "whole" if row["cut"] is None else f"{row['share']:.1%}"
        lines.append([f"{row['network']}, {row['side']} px", cut, *cells, why(row)])
    print(runner.markdown(head, lines))


def why(row: dict[str, Any]) -> str:
    """What lies between the prediction and the plan."""
    reasons = []
    if row["functional"] > row["predicted"]:
        reasons.append("in place here, a buffer of its own there")
    if row["functional"] < row["predicted"]:
        reasons.append("fewer operators there")
    gap = row.get("planned", row["functional"]) - row["functional"]
    if gap > 0:
        reasons.append(f"gaps of {gap:,}")
    if gap < 0:
        reasons.append(f"{-gap:,} not copied")
    return "; ".join(reasons) or "equal"


if __name__ == "__main__":
    main()
