"""Predicted cost against the slimmed network itself."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lcprune.cost import CostModel
from lcprune.models import build
from lcprune.ranking import plan_from_keep
from lcprune.slimming import slim
from lcprune.tracing import trace
from networks import random_network
from oracle import random_keep


def counted(model: nn.Module, example: Tensor) -> dict[str, int]:
    """MACs of one sample as PyTorch counts them, and parameters as they are."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(example)
    macs, odd = divmod(counter.get_total_flops(), 2 * len(example))
    assert odd == 0
    return {"macs": macs, "params": sum(p.numel() for p in model.parameters())}


def compare(model: nn.Module, example: Tensor, seed: int) -> None:
    graph = trace(model, example)
    cost = CostModel(graph)
    assert cost.evaluate() == counted(model, example)
    keep = random_keep(graph, np.random.default_rng(seed))
    small = slim(model, plan_from_keep(graph, keep))
    assert cost.evaluate(keep) == counted(small, example)
    assert sum(cost.by_op(keep).values()) == cost.evaluate(keep)["macs"]


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_cost_what_is_predicted(seed: int) -> None:
    compare(*random_network(seed), seed)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_mobilenet_v2"])
def test_networks_of_the_zoo_cost_what_is_predicted(name: str) -> None:
    model = build(name, classes=10, input_shape=(3, 32, 32))
    compare(model, torch.randn(1, 3, 32, 32), seed=0)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "densenet121", "convnext_tiny"])
def test_networks_of_torchvision_cost_what_is_predicted(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    compare(torchvision.models.get_model(name, weights=None), torch.randn(1, 3, 64, 64), seed=0)
