"""What is timed of a network, and that a unit at other widths is what a slimmed network runs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcprune.engines import engine_named
from lcprune.engines._units import Operator, steps, units
from lcprune.models import build
from lcprune.ranking import rank
from lcprune.slimming import slim
from lcprune.tracing import trace


class Block(nn.Module):
    """A residual block with a gate, a grouped and a depthwise convolution, and a downsample."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU())
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.deep = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.Hardswish()
        )
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.out = nn.Sequential(nn.Conv2d(32, 24, 1), nn.BatchNorm2d(24))
        self.shortcut = nn.Sequential(nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24))
        self.up = nn.ConvTranspose2d(24, 12, 2, stride=2)
        self.head = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.deep(self.grouped(x))
        gate = self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        y = torch.relu(self.out(y * gate) + self.shortcut(x))
        y = nn.functional.max_pool2d(torch.cat([self.up(y)[:, :, ::2, ::2], y], 1), 2)
        return self.head(y.mean((2, 3)))


def test_the_grid_is_coarse_where_networks_are_wide() -> None:
    assert steps(64) == (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64)
    assert steps(200)[-4:] == (128, 160, 192, 200)
    assert steps(3) == (3,)
    assert steps(30)[-2:] == (28, 30)


def test_norms_are_folded_and_what_follows_element_by_element_is_of_the_pass() -> None:
    graph = trace(Block().eval(), torch.randn(2, 3, 8, 8))
    kinds = [[node.kind for node in unit.nodes] for unit in units(graph)]
    assert kinds == [
        ["convolution", "silu"],
        ["convolution"],
        ["convolution", "hardswish"],
        ["mean"],
        ["convolution", "relu"],
        ["convolution", "sigmoid"],
        ["mul"],
        ["convolution"],  # what is added to comes later
        ["convolution", "add", "relu"],
        ["convolution"],
        ["slice"],
        ["slice"],
        ["cat"],
        ["max_pool2d_with_indices"],
        ["mean"],
        ["addmm"],
    ]


def test_a_key_has_no_widths_so_that_layers_share_cells() -> None:
    graph = trace(build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)), _image())
    counts = Counter(unit.key for unit in units(graph))
    first = units(graph)[0]
    assert "16" not in first.key.partition("->")[0]
    assert first.full == (3, 16)
    assert first.vectors[0] is None
    assert first.grid(0) == (3,)
    assert counts[first.key] == 4  # the stem and three convolutions of the first stage
    # What stays for another reason has the same key.
    skipped = trace(
        build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)), _image(), skip=("layer1.*",)
    )
    assert {unit.key for unit in units(skipped)} == set(counts)


def _image() -> Tensor:
    return torch.randn(1, 3, 32, 32)


def test_the_batch_is_of_the_table_and_not_of_the_example() -> None:
    model = Block().eval()
    keys = [
        [unit.key for unit in units(trace(model, torch.randn(n, 3, 8, 8)), batch=6)]
        for n in (1, 2, 3)
    ]
    assert keys[0] == keys[1] == keys[2]
    assert "6xAx8x8" in keys[0][0]


def test_a_unit_at_the_widths_of_a_slimmed_network_is_the_slimmed_networks_unit() -> None:
    """The oracle is the trace of the network that was really cut."""
    model, example = Block().eval(), torch.randn(1, 3, 8, 8)
    graph = trace(model, example)
    from lcprune.cost import Budget
    from lcprune.criteria import saliency

    plan = rank(graph, saliency(model, graph, "random"), Budget(macs=0.6))
    small = trace(slim(model, plan), example)
    wide, narrow = units(graph), units(small)
    assert len(wide) == len(narrow)
    for before, after in zip(wide, narrow, strict=True):
        assert [node.kind for node in before.nodes] == [node.kind for node in after.nodes]
        if before.nodes[0].kind == "cat":  # its parts only go along with their sum
            continue
        cut, own = before.at(after.full), after.at(after.full)
        assert cut.shapes == own.shapes, before.key
        assert [dict(n.settings).get("groups") for n in cut.nodes] == [
            dict(n.settings).get("groups") for n in own.nodes
        ]


@pytest.mark.parametrize("name", ["pytorch", "onnxruntime", "openvino"])
def test_every_engine_runs_every_unit_at_all_widths(name: str) -> None:
    for package in {"pytorch": (), "onnxruntime": ("onnx",)}.get(name, ("onnx", "openvino")):
        pytest.importorskip(package)
    if name != "pytorch":
        pytest.importorskip(name)
    engine = engine_named(name)
    graph = trace(Block().eval(), torch.randn(1, 3, 8, 8))
    seen: set[str] = set()
    for unit in units(graph):
        if unit.key in seen:
            continue
        seen.add(unit.key)
        least = tuple(unit.grid(slot)[0] for slot in range(len(unit.full)))
        for widths in {unit.full, least}:
            engine.operator(unit.at(widths))()


def test_what_pytorch_runs_has_the_shape_that_is_said() -> None:
    graph = trace(Block().eval(), torch.randn(1, 3, 8, 8))
    for unit in units(graph):
        least = tuple(unit.grid(slot)[0] for slot in range(len(unit.full)))
        for widths in (unit.full, least):
            _check_shapes(unit.at(widths))


def _check_shapes(operator: Operator) -> None:
    from lcprune.engines import _pytorch

    tensors: list[Tensor | None] = [None] * len(operator.shapes)
    for position in (*operator.inputs, *operator.states):
        tensors[position] = torch.full(operator.shapes[position], 0.1)
    for node in operator.nodes:
        tensors[node.write] = _pytorch._call(node, tensors, operator)()
        found = tensors[node.write]
        assert found is not None
        assert tuple(found.shape) == operator.shapes[node.write], node.kind
        assert np.isfinite(found.detach().numpy()).all()
