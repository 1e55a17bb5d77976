"""What moves positions: deformed convolutions, Fourier transforms, boxes, places that are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import ops

from tracing.rule_case import Case, Net, conv

BOX = torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]])


class Deformed(nn.Module):
    def __init__(self, groups: int = 1, offset_groups: int = 1, masked: bool = False) -> None:
        super().__init__()
        self.stem = conv(3, 6)
        self.offsets = conv(6, 18 * offset_groups)
        self.mask = conv(6, 9 * offset_groups) if masked else None
        self.deformed = ops.DeformConv2d(6, 6, 3, padding=1, groups=groups)
        self.head = conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        mask = None if self.mask is None else self.mask(x).sigmoid()
        return self.head(self.deformed(x, self.offsets(x), mask).relu())


class Spectral(nn.Module):
    """A convolution of the spectrum, whose real and imaginary parts are channels."""

    def __init__(self, pairs: bool) -> None:
        super().__init__()
        self.pairs = pairs
        self.stem, self.mix, self.head = conv(3, 6), conv(12, 12, 1), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        n, c, h, w = x.shape
        found = torch.fft.rfft2(x, norm="ortho")
        if self.pairs:
            parts = torch.view_as_real(found).permute(0, 1, 4, 2, 3).reshape(n, c * 2, h, -1)
            parts = self.mix(parts).relu().view(n, c, 2, h, -1).permute(0, 1, 3, 4, 2)
            found = torch.view_as_complex(parts.contiguous())
        else:
            real, imaginary = self.mix(torch.cat([found.real, found.imag], 1)).relu().chunk(2, 1)
            found = torch.complex(real, imaginary)
        return self.head(x + torch.fft.irfft2(found, s=(h, w), norm="ortho"))


class MultiScale(nn.Module):
    """Efficient multi-scale attention (Ouyang et al., 2023): groups of channels as images."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups, part = groups, width // groups
        self.stem, self.head = conv(3, width), conv(width, 2)
        self.norm = nn.GroupNorm(part, part)
        self.one, self.three = conv(part, part, 1), conv(part, part, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        b, c, h, w = x.size()
        parts = x.reshape(b * self.groups, -1, h, w)
        rows, columns = parts.mean(3, keepdim=True), parts.mean(2, keepdim=True)
        both = self.one(torch.cat([rows, columns.permute(0, 1, 3, 2)], 2))
        rows, columns = torch.split(both, [h, w], 2)
        first = self.norm(parts * rows.sigmoid() * columns.permute(0, 1, 3, 2).sigmoid())
        second = self.three(parts)

        def weighed(mean: Tensor, of: Tensor) -> Tensor:
            mean = F.adaptive_avg_pool2d(mean, (1, 1)).reshape(b * self.groups, -1, 1)
            of = of.reshape(b * self.groups, c // self.groups, -1)
            return mean.permute(0, 2, 1).softmax(-1) @ of

        weights = (weighed(first, second) + weighed(second, first)).reshape(-1, 1, h, w)
        return self.head((parts * weights.sigmoid()).reshape(b, c, h, w))


def after_stem(run: Any, **parts: Any) -> nn.Module:
    def forward(net: Any, x: Tensor) -> Any:
        return net.head(run(net, net.stem(x).relu()))

    return Net(forward, stem=conv(3, 6), head=conv(6, 2), **parts)


def polar(net: Any, x: Tensor) -> Tensor:
    found = torch.fft.fft2(x)
    return torch.fft.ifft2(torch.polar(found.abs(), found.angle())).real


def warped(net: Any, x: Tensor) -> Tensor:
    return F.grid_sample(x, net.flow(x).permute(0, 2, 3, 1).tanh(), align_corners=False)


OFFSETS = "the offsets of torchvision.deform_conv2d in deformed"
CASES = (
    Case("a deformed convolution", Deformed, "stem deformed", 12, stay={"offsets": OFFSETS}),
    Case("a deformed convolution with masks and groups of offsets",
         lambda: Deformed(1, 3, masked=True), "stem deformed", 2 + 6,
         stay={"offsets": OFFSETS, "mask": OFFSETS}),
    Case("a deformed convolution of groups", lambda: Deformed(2), "stem deformed", 3 + 3,
         stay={"offsets": OFFSETS}),
    Case("a deformed depthwise convolution", lambda: Deformed(6), "stem deformed", 6,
         stay={"offsets": OFFSETS}),
    Case("a spectrum as two halves", lambda: Spectral(False), "stem mix", 6),
    Case("a spectrum as pairs", lambda: Spectral(True), "stem mix", 6),
    Case("a spectrum by length and angle", lambda: after_stem(polar), "stem", 6),
    Case("a transform across channels",
         lambda: after_stem(lambda net, x: torch.fft.fft(x, dim=1).real), "", 0,
         stay={"stem": "an operation across channels"}),
    Case("multi-scale attention, few groups", lambda: MultiScale(12, 2), "stem one three", 6),
    Case("multi-scale attention, as many as channels in them", lambda: MultiScale(16, 4),
         "stem one three", 4),
    Case("multi-scale attention, many groups", lambda: MultiScale(12, 6), "stem", 6,
         stay={"one": "", "three": ""}),
    Case("boxes of an image", lambda: after_stem(lambda _, x: ops.roi_align(x, BOX.to(x), 2)),
         "stem", 6),
    Case("boxes of an image, the largest", lambda: after_stem(
         lambda _, x: ops.roi_pool(x, BOX.to(x), 2)), "stem", 6),
    Case("bins of channels", lambda: Net(
         lambda net, x: net.head(ops.ps_roi_align(net.stem(x), BOX.to(x), 2)),
         stem=conv(3, 8), head=conv(2, 2)), "", 0, stay={"stem": "chosen by their places"}),
    Case("a warp by what a layer computes", lambda: after_stem(warped, flow=conv(6, 2)), "stem", 6,
         stay={"flow": "the places that aten.grid_sampler_2d"}),
    Case("padding that goes round", lambda: after_stem(
         lambda net, x: net.round(x).relu(), round=nn.Conv2d(6, 6, 3, padding=1,
                                                             padding_mode="circular")),
         "stem round", 12),
    Case("medians of rows", lambda: after_stem(lambda _, x: x.median(-1, keepdim=True)[0]),
         "stem", 6),
    Case("the largest so far", lambda: after_stem(lambda _, x: x.cummax(-1)[0]), "stem", 6),
    Case("a number of elements", lambda: after_stem(lambda _, x: x * 100 / x.numel()), "", 0,
         stay={"stem": "a value that is computed from their number"}),
)  # fmt: skip
