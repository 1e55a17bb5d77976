"""A generator of small random networks that compose what convolutional networks are made of."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune.tracing import ChannelPad


class Gate(nn.Module):
    """Squeeze and excite: a gate per channel from its mean over positions."""

    def __init__(self, channels: int, squeezed: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        layer = nn.Linear if linear else lambda i, o: nn.Conv2d(i, o, 1)
        self.reduce = layer(channels, squeezed)
        self.expand = layer(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=not self.linear)
        gate = torch.sigmoid(self.expand(functional.silu(self.reduce(pooled))))
        return x * (gate[:, :, None, None] if self.linear else gate)


class PositionGate(nn.Module):
    """A single-channel gate that broadcasts over all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x))


class Residual(nn.Module):
    """A body beside an identity that is padded with zero channels where the body widens."""

    def __init__(self, body: nn.Module, before: int, after: int) -> None:
        super().__init__()
        self.body = body
        self.pad = ChannelPad(before, after) if before + after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += self.pad(x)
        return functional.relu(y, inplace=True)


class PlainPadResidual(nn.Module):
    """The same with padding that is fixed in code: its channels have to stay."""

    def __init__(self, body: nn.Module, extra: int) -> None:
        super().__init__()
        self.body = body
        self.padding = lambda: (0, 0, 0, 0, extra, extra)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + functional.pad(x, self.padding())


class Dense(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.body(x), x.detach()], 1)


class TwoChunks(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        return torch.cat([kept, self.body(changed)], dim=1)


class FixedSplit(nn.Module):
    def __init__(self, body: nn.Module, first: int) -> None:
        super().__init__()
        self.body = body
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, self.first :], self.body(x[:, : self.first])], 1)


class Shuffle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ChannelsLastNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mix = nn.Linear(channels, channels)
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(functional.gelu(self.norm(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return x + self.scale * y


class Reused(nn.Module):
    """One convolution applied twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.tanh(self.conv(x)))


class Functional(nn.Module):
    """A convolution with raw parameters, its weight computed in the forward."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(outputs, inputs, 3, 3))
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.kernel.data * self.gain.abs(), padding=1)


class Head(nn.Module):
    def __init__(self, channels: int, positions: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(positions)
        self.linear = nn.Linear(channels * positions * positions, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.flatten(self.pool(x), 1))


def _normalisation(rng: np.random.Generator, channels: int) -> nn.Module:
    kind = rng.integers(4)
    if kind == 0:
        return nn.Identity()
    if kind == 1 and channels % 2 == 0:
        return nn.GroupNorm(2, channels)
    return nn.BatchNorm2d(channels)


def _activation(rng: np.random.Generator, channels: int) -> nn.Module:
    choices = [nn.ReLU(inplace=True), nn.Hardswish(), nn.SiLU(), nn.PReLU(channels), nn.Sigmoid()]
    return choices[rng.integers(len(choices))]


def _convolution(rng: np.random.Generator, inputs: int, outputs: int, groups: int = 1) -> nn.Module:
    size = int(rng.choice([1, 3]))
    return nn.Sequential(
        nn.Conv2d(
            inputs, outputs, size, padding=size // 2, groups=groups, bias=bool(rng.integers(2))
        ),
        _normalisation(rng, outputs),
        _activation(rng, outputs),
    )


def random_network(seed: int) -> tuple[nn.Module, Tensor]:
    """A random network and an example input for it."""
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([4, 6, 8]))
    blocks: list[nn.Module] = [_convolution(rng, 3, channels)]
    for _ in range(rng.integers(3, 7)):
        block, channels = _block(rng, channels)
        blocks.append(block)
    blocks.append(Head(channels, int(rng.choice([1, 2])), 5))
    example = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.Sequential(*blocks).eval(), example


def _block(rng: np.random.Generator, channels: int) -> tuple[nn.Module, int]:
    width = int(rng.choice([4, 6, 8]))
    even = channels % 2 == 0
    kind = rng.integers(17)
    if kind == 0:
        return Gate(channels, width, bool(rng.integers(2))), channels
    if kind == 1:
        return PositionGate(channels), channels
    if kind == 2:
        before, after = (int(n) for n in rng.integers(0, 3, 2))
        wide = channels + before + after
        return Residual(_convolution(rng, channels, wide), before, after), wide
    if kind == 3:
        extra = int(rng.integers(1, 3))
        return PlainPadResidual(_convolution(rng, channels, channels + 2 * extra), extra), (
            channels + 2 * extra
        )
    if kind == 4 and channels <= 12:
        return Dense(_convolution(rng, channels, width)), channels + width
    if kind == 5 and even:
        return TwoChunks(_convolution(rng, channels // 2, width)), channels // 2 + width
    if kind == 6 and channels > 1:
        first = int(rng.integers(1, channels))
        return FixedSplit(_convolution(rng, first, width), first), channels - first + width
    if kind == 7 and even:
        return Shuffle(), channels
    if kind == 8:
        return ChannelsLastNorm(channels), channels
    if kind == 9:
        return Reused(channels), channels
    if kind == 10:
        return Functional(channels, width), width
    if kind == 11:
        return nn.ConvTranspose2d(channels, width, 2, stride=2), width
    if kind == 12:
        multiplier = int(rng.choice([1, 2]))
        if channels * multiplier <= 16:
            depthwise = _convolution(rng, channels, channels * multiplier, groups=channels)
            return depthwise, channels * multiplier
    if kind == 13 and even:
        return _convolution(rng, channels, 2 * width, groups=2), 2 * width
    if kind == 14 and channels % 4 == 0:
        return nn.PixelShuffle(2), channels // 4
    if kind == 15:
        hidden = nn.Sequential(
            _convolution(rng, channels, 2 * width), nn.ConvTranspose2d(2 * width, channels, 1)
        )
        return Residual(hidden, 0, 0), channels
    return _convolution(rng, channels, width), width
