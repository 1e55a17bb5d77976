"""The smallest network that needs a rule, and what the rule must leave to choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


def images(channels: int = 3, size: int = 8) -> Tensor:
    """One image, the same at every call."""
    return torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(0))


def values(*shape: int) -> Tensor:
    """Normal values, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A network of named parts and a forward that gets the network as its first argument."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)


@dataclass(frozen=True)
class Case:
    """A network, and which of its filters can go.

    ``free`` names the tensors all of whose filters can go (a layer stands for its weight), and
    ``groups`` says how many groups they make. All other filters stay, for the reasons in
    ``stay``; a layer named ``head`` makes the output.
    """

    name: str
    build: Callable[[], nn.Module]
    free: str
    groups: int
    stay: Mapping[str, str] = field(default_factory=dict)
    example: Any = field(default_factory=images)


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the size of the image."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def chain(*parts: nn.Module, head: nn.Module) -> nn.Module:
    """Layers one after the other: ``a``, ``b``, … and then ``head``."""
    names = "abcdefgh"[: len(parts)]

    def run(net: Any, x: Tensor) -> Any:
        for name in names:
            x = getattr(net, name)(x)
        return net.head(x)

    return Net(run, **dict(zip(names, parts, strict=True)), head=head)
