"""Small networks of the kinds that exporters meet, and the engines that are here."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lcprune.engines import ENGINES, FORMATS, INT8, Engine, engine_named
from lcprune.errors import InputError

SLOW = {"executorch"}
"""Engines that take half a minute for the smallest network."""


def engine_or_skip(name: str, *, int8: bool = False) -> Engine:
    try:
        return engine_named(name, int8=int8)
    except InputError as error:
        pytest.skip(str(error))


def every_engine() -> list[Any]:
    return [
        pytest.param(name, marks=pytest.mark.thorough) if name in SLOW else name for name in ENGINES
    ]


INT8_ENGINES = [
    pytest.param(FORMATS[format], marks=pytest.mark.thorough)
    if FORMATS[format] != "onnxruntime"
    else FORMATS[format]
    for format in INT8
]


def has(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module) -> nn.Module:
    """The model in eval mode with other norms than a new one has."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return model.eval()


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return randomised(
        nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(),
            nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )
    )  # fmt: skip


class Keywords(nn.Module):
    """Takes a picture, a scale for each sample and a plain number, by keyword; gives a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(
        self, image: Tensor, *, scale: Tensor, power: int, mask: Tensor | None = None
    ) -> dict[str, Any]:
        x = torch.relu(self.norm(self.stem(image)))
        if mask is not None:
            x = x * mask
        pooled = x.mean((2, 3)) * scale[:, None] ** power
        return {"logits": self.head(pooled), "features": [x]}


def keywords() -> nn.Module:
    torch.manual_seed(0)
    return randomised(Keywords())


class Unheard(nn.Module):
    """Uses an operator that no exporter but PyTorch's own has."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Undecided(nn.Module):
    """What it does depends on the values of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1
