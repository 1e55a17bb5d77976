"""MobileNetV2 for 32x32 images."""

from __future__ import annotations

import importlib

from torch import nn

from lcprune.errors import ModelError

SETTING = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, width, blocks and stride of each stage of Sandler et al. (2018), table 2."""


def cifar_mobilenet_v2(classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build torchvision's MobileNetV2 with a first stride of 1 and without dropout.

    ``ModelError`` where torchvision is missing.
    """
    try:
        models = importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:
        raise ModelError(
            "cifar_mobilenet_v2 needs torchvision: pip install 'lcprune[vision]'"
        ) from error
    model: nn.Module = models.MobileNetV2(
        num_classes=classes,
        inverted_residual_setting=[list(stage) for stage in SETTING],
        dropout=0.0,
    )
    first = model.get_submodule("features.0.0")
    if not isinstance(first, nn.Conv2d):
        raise ModelError("this torchvision's MobileNetV2 does not begin with a convolution")
    first.stride = (1, 1)
    if in_channels != first.in_channels:
        replacement = nn.Conv2d(in_channels, first.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(replacement.weight, mode="fan_out")
        model.get_submodule("features.0").register_module("0", replacement)
    return model
