"""Rounding of values and weights, as training that is aware of a later quantisation does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn import functional as F

from tracing.rule_case import Case, Net, conv


def _by_numbers(net: Any, x: Tensor) -> Tensor:
    weight = torch.fake_quantize_per_tensor_affine(net.a.weight, 0.02, 0, -128, 127)
    x = F.conv2d(x, weight, net.a.bias, padding=1).relu()
    x = torch.fake_quantize_per_tensor_affine(x, net.step, net.zero, 0, 255)
    return net.head(net.b(x).relu())


def _by_channels(net: Any, x: Tensor) -> Tensor:
    weight = torch.fake_quantize_per_channel_affine(net.a.weight, net.steps, net.zeros, 0, -128, 127)  # noqa: E501  # fmt: skip
    return net.head(net.b(F.conv2d(x, weight, net.a.bias, padding=1).relu()).relu())


def _learned(net: Any, x: Tensor) -> Tensor:
    weight = torch._fake_quantize_learnable_per_channel_affine(
        net.a.weight, net.steps.abs() * 0.02, net.zeros.float(), 0, -128, 127
    )
    x = F.conv2d(x, weight, net.a.bias, padding=1).relu()
    x = torch._fake_quantize_learnable_per_tensor_affine(x, net.step, net.zero.float(), 0, 255)
    return net.head(net.b(x).relu())


def _straight_through(net: Any, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    x = x + (torch.round(x * 16) / 16 - x).detach()
    return net.head(net.b(x).relu())


class Rounded(nn.Module):
    """Two layers whose rounding has steps in buffers."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run
        self.a, self.b, self.head = conv(3, 6), conv(6, 5), conv(5, 2)
        self.register_buffer("step", torch.full((1,), 0.03))
        self.register_buffer("zero", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("steps", torch.full((6,), 0.02))
        self.register_buffer("zeros", torch.zeros(6, dtype=torch.int32))

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def _observed(per_channel: bool) -> nn.Module:
    """Steps from the largest and smallest values, of weights by channel or as a whole."""
    values = quantization.FusedMovingAvgObsFakeQuantize
    weights = (
        quantization.default_fused_per_channel_wt_fake_quant
        if per_channel
        else quantization.default_fused_wt_fake_quant
    )

    def run(net: Any, x: Tensor) -> Any:
        x = F.conv2d(x, net.weights(net.a.weight), net.a.bias, padding=1).relu()
        return net.head(net.b(net.values(x)).relu())

    return Net(run, a=conv(3, 6), b=conv(6, 5), head=conv(5, 2), weights=weights(), values=values())


CASES = (
    Case("rounding by numbers", lambda: Rounded(_by_numbers), "a b", 11),
    Case("rounding by channel", lambda: Rounded(_by_channels), "a b", 11),
    Case("rounding with learned steps", lambda: Rounded(_learned), "a b", 11),
    Case("rounding straight through", lambda: Rounded(_straight_through), "a b", 11),
    Case("observed weights by channel", lambda: _observed(True), "a b", 11),
    Case("observed weights", lambda: _observed(False), "a b", 11),
)
