"""MobileNetV2 for small images."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lcprune.errors import ModelError
from lcprune.models import build, cifar_mobilenet_v2


def test_cost_is_as_published_with_its_weights() -> None:
    pytest.importorskip("torchvision")
    model = cifar_mobilenet_v2().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert round(counter.get_total_flops() / 2e6, 2) == 24.46
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 2.24


def test_no_dropout_and_a_first_stride_of_one() -> None:
    pytest.importorskip("torchvision")
    model = cifar_mobilenet_v2(classes=7, in_channels=1).eval()
    assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))
    assert model.get_submodule("features.0")(torch.zeros(1, 1, 32, 32)).shape[2:] == (32, 32)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_without_torchvision_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    for name in ("cifar_mobilenet_v2", "torchvision/resnet18"):
        with pytest.raises(ModelError, match="lcprune\\[vision\\]"):
            build(name, classes=10, input_shape=(3, 32, 32))
