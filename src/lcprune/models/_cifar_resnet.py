"""Residual networks for small images, with zero-padded shortcuts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune.errors import ModelError
from lcprune.tracing import ChannelPad


class Shortcut(nn.Module):
    """Option A: every second row and column, and zero channels on either side; no weights."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (planes - planes_in) // 2
        self.pad = ChannelPad(before, planes - planes_in - before)

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.pad(input[:, :, :: self.stride, :: self.stride])
        return output


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        same = stride == 1 and planes_in == planes
        self.shortcut = nn.Identity() if same else Shortcut(planes_in, planes, stride)

    def forward(self, input: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(input)), inplace=True)
        output: Tensor = self.bn2(self.conv2(hidden))
        output += self.shortcut(input)
        return functional.relu(output, inplace=True)


def stage(count: int, planes_in: int, planes: int, stride: int) -> nn.Sequential:
    """Blocks of one width; the first one changes width and resolution."""
    first = BasicBlock(planes_in, planes, stride)
    return nn.Sequential(first, *(BasicBlock(planes, planes, 1) for _ in range(count - 1)))


class CifarResNet(nn.Module):
    """The 6n+2-layer network of He et al. (2015), section 4.2, for 32x32 images.

    Input (N, in_channels, H, W) with H, W of at least 4, output (N, classes): logits.
    """

    def __init__(self, depth: int, classes: int, in_channels: int) -> None:
        super().__init__()
        count = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(count, 16, 16, 1)
        self.layer2 = stage(count, 16, 32, 2)
        self.layer3 = stage(count, 32, 64, 2)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, input: Tensor) -> Tensor:
        hidden = functional.relu(self.bn1(self.conv1(input)), inplace=True)
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        pooled = functional.adaptive_avg_pool2d(hidden, 1)
        logits: Tensor = self.linear(torch.flatten(pooled, 1))
        return logits


def cifar_resnet(depth: int, classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build a residual network of ``depth`` layers for small images.

    Keys of the state dict: ``conv1``, ``bn1``, ``layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2}``,
    ``linear``. ``ModelError`` unless depth = 6n + 2 with n of at least 1.
    """
    if depth < 8 or depth % 6 != 2:
        raise ModelError(f"a depth of {depth}: expected 6n + 2, as 8, 20, 32, 44, 56 or 110")
    return CifarResNet(depth, classes, in_channels)
