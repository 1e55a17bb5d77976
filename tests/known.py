"""Known networks at small inputs, each built and traced once a session."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from lcprune.graph import ChannelGraph
from lcprune.models import build
from lcprune.testing import randomise
from lcprune.tracing import trace

DEFAULT = ("mobilenet_v3_small", "shufflenet_v2_x1_0", "convnext_tiny", "regnet_y_400mf")
"""Depthwise with gates, channel shuffles and concatenations, layer norms, groups."""

OTHERS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "vgg11_bn",
          "efficientnet_b0", "inception_v3", "squeezenet1_1", "mnasnet1_0", "alexnet",
          "densenet121", "googlenet", "resnext50_32x4d", "cifar_resnet56",
          "cifar_mobilenet_v2")  # fmt: skip

NETWORKS = [*DEFAULT, *(pytest.param(name, marks=pytest.mark.thorough) for name in OTHERS)]
"""For ``parametrize``: all but four are thorough."""

_SIDES = {"inception_v3": 96, "alexnet": 64}


@cache
def traced(name: str) -> tuple[nn.Module, Tensor, ChannelGraph]:
    """A network with random values in eval mode, an example input, and its graph; change none."""
    side = _SIDES.get(name, 32)
    if name.startswith("cifar"):
        model = build(name, classes=10, input_shape=(3, side, side))
    else:
        models = pytest.importorskip("torchvision").models
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = models.get_model(name, weights=None, **options)
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(2))
    randomise(model, seed=1)
    return model, example, trace(model, example)
