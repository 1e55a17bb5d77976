"""Normalisation: per channel, and over the channels that are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops.misc import FrozenBatchNorm2d

from tracing.rule_case import Case, Net, chain, conv, values


def after_stem(norm: nn.Module, width: int) -> nn.Module:
    """A norm between two convolutions, the first with filters of uneven strength."""
    return chain(conv(3, width), norm, nn.SiLU(), conv(width, 5), head=conv(5, 2))


class ChannelsFirst(nn.LayerNorm):
    """A layer norm over the channels of images, as in ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelsFirstByShape(nn.LayerNorm):
    """The same by the functional call."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ByHand(nn.Module):
    """A layer norm over the channels of images, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(spread + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class RootMeanSquare(nn.Module):
    """RMSNorm over the channels of images, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * self.gain


class GlobalResponse(nn.Module):
    """The global response norm of ConvNeXt V2: norms over positions, their mean over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        size = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
        share = size / (size.mean(dim=1, keepdim=True) + 1e-6)
        return x + self.gain.view(1, -1, 1, 1) * (x * share)


class UnitLength(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


class ChannelsLast(nn.Module):
    """A norm of the last dimension for images."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _tokens(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).flatten(2).transpose(1, 2)
    return net.head(net.mix(net.norm(x)).mean(1))


def _mixer(net: Any, x: Tensor) -> Tensor:
    """A layer norm over positions: no channel takes part in another's statistic."""
    x = net.stem(x).flatten(2)
    return net.head(net.norm(x).unflatten(2, (8, 8)))


CASES = (
    Case("batch norm", lambda: after_stem(nn.BatchNorm2d(6), 6), "a d", 6 + 5),
    Case(
        "batch norm without scale and shift",
        lambda: after_stem(nn.BatchNorm2d(6, affine=False), 6),
        "a d",
        6 + 5,
    ),
    Case(
        "batch norm without running statistics",
        lambda: after_stem(nn.BatchNorm2d(6, track_running_stats=False), 6),
        "a d",
        6 + 5,
    ),
    Case("frozen batch norm", lambda: after_stem(FrozenBatchNorm2d(6), 6), "a d", 6 + 5),
    Case(
        "layer norm, channels last",
        lambda: Net(_tokens, stem=conv(3, 7), norm=nn.LayerNorm(7), mix=nn.Linear(7, 6),
                    head=nn.Linear(6, 2)),
        "stem mix",
        7 + 6,
    ),
    Case("layer norm, channels first", lambda: after_stem(ChannelsFirst(6), 6), "a d", 6 + 5),
    Case("layer norm by its function", lambda: after_stem(ChannelsFirstByShape(6), 6), "a d", 11),
    Case(
        "layer norm without scale and shift",
        lambda: after_stem(ChannelsFirst(6, elementwise_affine=False), 6),
        "a d",
        6 + 5,
    ),
    Case("layer norm by hand", lambda: after_stem(ByHand(6), 6), "a d", 6 + 5),
    Case(
        "layer norm over channels and positions",
        lambda: after_stem(nn.LayerNorm([6, 8, 8]), 6),
        "d",
        5,
        stay={"a": "normalised over several dimensions"},
    ),
    Case(
        "layer norm over positions",
        lambda: Net(_mixer, stem=conv(3, 6), norm=nn.LayerNorm(64), head=conv(6, 2)),
        "stem",
        6,
    ),
    Case("group norm, same places", lambda: after_stem(nn.GroupNorm(2, 8), 8), "a d", 4 + 5),
    Case("group norm, whole groups", lambda: after_stem(nn.GroupNorm(4, 8), 8), "a d", 4 + 5),
    Case("group norm of one group", lambda: after_stem(nn.GroupNorm(1, 6), 6), "a d", 6 + 5),
    Case("group norm of one channel", lambda: after_stem(nn.GroupNorm(6, 6), 6), "a d", 6 + 5),
    Case(
        "group norm without scale and shift",
        lambda: after_stem(nn.GroupNorm(2, 8, affine=False), 8),
        "a d",
        4 + 5,
    ),
    Case("instance norm", lambda: after_stem(nn.InstanceNorm2d(6), 6), "a d", 6 + 5),
    Case(
        "instance norm with scale and shift",
        lambda: after_stem(nn.InstanceNorm2d(6, affine=True), 6),
        "a d",
        6 + 5,
    ),
    Case(
        "instance norm with running statistics",
        lambda: after_stem(nn.InstanceNorm2d(6, affine=True, track_running_stats=True), 6),
        "a d",
        6 + 5,
    ),
    Case("RMSNorm", lambda: after_stem(ChannelsLast(nn.RMSNorm(6)), 6), "a d", 6 + 5),
    Case("RMSNorm by hand", lambda: after_stem(RootMeanSquare(6), 6), "a d", 6 + 5),
    Case("global response norm", lambda: after_stem(GlobalResponse(6), 6), "a d", 6 + 5),
    Case("unit length", lambda: after_stem(UnitLength(), 6), "a d", 6 + 5),
    Case("local response norm", lambda: after_stem(nn.LocalResponseNorm(3), 6), "a d", 6 + 5),
    Case(
        "flatten and batch norm",
        lambda: chain(conv(3, 6), nn.MaxPool2d(4), nn.Flatten(), nn.BatchNorm1d(24),
                      nn.Linear(24, 5), head=nn.Linear(5, 2)),
        "a e",
        6 + 5,
    ),
    Case(
        "group norm in one dimension",
        lambda: chain(nn.Conv1d(3, 6, 3), nn.GroupNorm(2, 6), nn.SiLU(), head=nn.Conv1d(6, 2, 1)),
        "a",
        3,
        example=values(1, 3, 8),
    ),
)  # fmt: skip
