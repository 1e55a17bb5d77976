"""Convolutions: grouped, transposed, of raw parameters, with weights that are computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from tracing.rule_case import Case, Net, chain, conv, values


def raw(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def grouped(inputs: int, outputs: int, groups: int, **options: Any) -> nn.Module:
    return chain(
        conv(3, inputs), conv(inputs, outputs, groups=groups, **options), head=conv(outputs, 2)
    )


def transposed(inputs: int, outputs: int, groups: int) -> nn.Module:
    return chain(
        conv(3, inputs),
        nn.ConvTranspose2d(inputs, outputs, 2, stride=2, groups=groups),
        nn.Tanh(),
        head=conv(outputs, 2),
    )


def several_dimensions(n: int) -> nn.Module:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[n - 1]
    transposed_ = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[n - 1]
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[n - 1]
    mean = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[n - 1]
    one = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[n - 1]
    return chain(
        convolution(2, 5, 3, padding=1),
        nn.Sequential(norm(5), nn.PReLU(5), pool(2)),
        transposed_(5, 6, 2, stride=2),
        nn.Sequential(nn.InstanceNorm3d(6) if n == 3 else nn.GroupNorm(1, 6), mean(2)),
        convolution(6, 4, 1),
        nn.Sequential(one(1), nn.Flatten()),
        head=nn.Linear(4, 2),
    )


def _depthwise_by_shape(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(F.conv2d(x, net.kernel, net.shift, padding=1, groups=x.shape[1]))


def _depthwise_by_attribute(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(F.conv2d(x, net.kernel, padding=1, groups=net.groups))


def _depthwise_by_literal(net: Any, x: Tensor) -> Tensor:
    return net.head(F.conv2d(net.stem(x), net.kernel, padding=1, groups=6))


def _blur(net: Any, x: Tensor) -> Tensor:
    """A fixed filter for every channel, as in an anti-aliased pooling."""
    x = net.stem(x)
    kernel = net.kernel.expand(x.shape[1], 1, 3, 3)
    return net.head(F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1]))


def _blur_of_each_image(net: Any, x: Tensor) -> Tensor:
    """The same with the channels of all images side by side."""
    x = net.stem(x)
    n, c, h, w = x.shape
    kernel = net.kernel.expand(n * c, 1, 3, 3)
    x = F.conv2d(x.reshape(1, n * c, h, w), kernel, padding=1, groups=n * c)
    return net.head(x.view(n, c, h, w))


def _kernels_of_each_image(net: Any, x: Tensor) -> Tensor:
    """Every channel of every image with a kernel that is computed of the image."""
    x = net.stem(x)
    n, c, h, w = x.shape
    kernel = net.kernel(x.mean((2, 3))).view(n * c, 1, 3, 3)
    x = F.conv2d(x.reshape(1, n * c, h, w), kernel, padding=1, groups=n * c)
    return net.head(x.view(n, c, h, w))


def _correlated(net: Any, x: Tensor) -> Tensor:
    """A part of the image, channel by channel, as the kernel that looks for it."""
    part, x = net.stem(x[..., :3, :3]), net.stem(x)
    n, c, h, w = x.shape
    kernel = part.reshape(n * c, 1, 3, 3)
    x = F.conv2d(x.reshape(1, n * c, h, w), kernel, padding=1, groups=n * c)
    return net.head(x.view(n, c, h, w))


def _raw(net: Any, x: Tensor) -> Tensor:
    x = torch.relu(F.conv2d(x, net.first, net.shift, padding=1))
    return F.linear(F.conv2d(x, net.second).mean((2, 3)), net.head)


def _standardised(net: Any, x: Tensor) -> Tensor:
    weight = net.wide.weight
    spread, mean = torch.var_mean(weight, dim=[1, 2, 3], keepdim=True)
    weight = (weight - mean) / (spread + 1e-5).sqrt() * net.gain
    return net.head(torch.tanh(F.conv2d(net.stem(x), weight, net.wide.bias)))


def _standardised_by_batch_norm(net: Any, x: Tensor) -> Tensor:
    """As timm's ``StdConv2d``."""
    layer = net.wide
    weight = F.batch_norm(
        layer.weight.reshape(1, layer.out_channels, -1), None, None, training=True, momentum=0.0
    ).reshape_as(layer.weight)
    return net.head(torch.tanh(F.conv2d(net.stem(x), weight, layer.bias)))


def _unfolded(net: Any, x: Tensor) -> Tensor:
    """A convolution by hand: patches times the weight as a matrix."""
    x = net.stem(x)
    patches = F.unfold(x, 3, padding=1)
    weight = net.wide.weight
    out = weight.reshape(weight.shape[0], -1) @ patches
    return net.head(out.view(x.shape[0], weight.shape[0], *x.shape[2:]))


def _folded(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    patches = F.unfold(x, 2, stride=2)
    return net.head(F.fold(torch.tanh(patches), x.shape[2:], 2, stride=2))


def _joined_weights(net: Any, x: Tensor) -> Tensor:
    weight = torch.cat([net.first.weight, net.second.weight])
    return net.head(torch.tanh(F.conv2d(net.stem(x), weight)))


def normalised_weights(wrap: Any) -> nn.Module:
    return chain(
        conv(3, 6), wrap(conv(6, 5)), nn.ReLU(), wrap(conv(5, 4, 1)), head=conv(4, 2, bias=False)
    )


def by_kernel() -> dict[str, Any]:
    return {"stem": conv(3, 6), "kernel": raw(6, 1, 3, 3), "head": conv(6, 2)}


def two_layers() -> dict[str, Any]:
    return {"stem": conv(3, 7), "wide": conv(7, 6, 1), "head": conv(6, 2)}


PARAMETRISED = ("b.parametrizations.weight", "d.parametrizations.weight")

CASES = (
    Case("whole groups", lambda: grouped(8, 8, 4), "a b", 4),
    Case("whole groups that widen", lambda: grouped(8, 16, 4), "a b", 4),
    Case("tied groups", lambda: grouped(12, 10, 2), "a b", 6 + 5),
    Case("depthwise", lambda: grouped(6, 6, 6), "a b", 6),
    Case("depthwise with two filters a channel", lambda: grouped(6, 12, 6, bias=False), "a b", 6),
    Case("transposed", lambda: transposed(7, 6, 1), "a b", 7 + 6),
    Case("transposed, whole groups", lambda: transposed(8, 8, 4), "a b", 4,
         stay={"b": "go as a whole"}),
    Case("transposed, tied groups", lambda: transposed(12, 8, 2), "a b", 6 + 4),
    Case("transposed depthwise", lambda: transposed(6, 6, 6), "a b", 6),
    Case("1-D", lambda: several_dimensions(1), "a c e", 5 + 6 + 4, example=values(1, 2, 8)),
    Case("2-D", lambda: several_dimensions(2), "a c e", 5 + 6 + 4, example=values(1, 2, 8, 8)),
    Case("3-D", lambda: several_dimensions(3), "a c e", 5 + 6 + 4, example=values(1, 2, 4, 4, 4)),
    Case(
        "depthwise on a raw kernel, groups from a shape",
        lambda: Net(_depthwise_by_shape, **by_kernel(), shift=raw(6)),
        "stem kernel",
        6,
    ),
    Case(
        "depthwise on a raw kernel, groups from an attribute",
        lambda: Net(_depthwise_by_attribute, **by_kernel(), groups=6),
        "stem kernel",
        6,
    ),
    Case(
        "depthwise on a raw kernel, groups in code",
        lambda: Net(_depthwise_by_literal, **by_kernel()),
        "",
        0,
        stay={"stem": "fixed in code", "kernel": "fixed in code"},
    ),
    Case(
        "one fixed kernel for all channels",
        lambda: Net(_blur, stem=conv(3, 6), kernel=raw(1, 1, 3, 3), head=conv(6, 2)),
        "stem",
        6,
    ),
    Case(
        "raw parameters",
        lambda: Net(_raw, first=raw(6, 3, 3, 3), shift=raw(6), second=raw(5, 6, 1, 1),
                    head=raw(2, 5)),
        "first second",
        6 + 5,
    ),
    Case(
        "standardised weights",
        lambda: Net(_standardised, **two_layers(), gain=raw(6, 1, 1, 1)),
        "stem wide gain",
        7 + 6,
    ),
    Case(
        "weights standardised by a batch norm",
        lambda: Net(_standardised_by_batch_norm, **two_layers()),
        "stem wide",
        7 + 6,
    ),
    Case(
        "unfold and a matrix",
        lambda: Net(_unfolded, stem=conv(3, 5), wide=conv(5, 6), head=conv(6, 2)),
        "stem wide",
        5 + 6,
    ),
    Case("a fixed blur of each image", lambda: Net(_blur_of_each_image, stem=conv(3, 6),
         kernel=raw(1, 1, 3, 3), head=conv(6, 2)), "stem", 6),
    Case("kernels of each image", lambda: Net(_kernels_of_each_image, stem=conv(3, 6),
         kernel=nn.Linear(6, 54), head=conv(6, 2)), "stem kernel", 6),
    Case("correlation by channel", lambda: Net(_correlated, stem=conv(3, 6), head=conv(6, 2)),
         "stem", 6),
    Case("unfold and fold", lambda: Net(_folded, stem=conv(3, 5), head=conv(5, 2)), "stem", 5),
    Case(
        "concatenated weights",
        lambda: Net(_joined_weights, stem=conv(3, 5), first=conv(5, 3, 1), second=conv(5, 4, 1),
                    head=conv(7, 2)),
        "stem first second",
        5 + 3 + 4,
    ),
    Case("weight_norm", lambda: normalised_weights(parametrizations.weight_norm),
         " ".join(["a", *(f"{m}.original{i}" for m in PARAMETRISED for i in (0, 1))]), 6 + 5 + 4),
    Case("weight_norm by a hook", lambda: normalised_weights(old_weight_norm),
         "a b.weight_v b.weight_g d.weight_v d.weight_g", 6 + 5 + 4),
    Case("spectral_norm", lambda: normalised_weights(parametrizations.spectral_norm),
         " ".join(["a", *(f"{m}.{t}" for m in PARAMETRISED for t in ("original", "0._u"))]),
         6 + 5 + 4),
    Case("spectral_norm by a hook", lambda: normalised_weights(old_spectral_norm),
         "a b.weight_orig b.weight_u d.weight_orig d.weight_u", 6 + 5 + 4),
)  # fmt: skip
