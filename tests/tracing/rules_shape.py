"""Values that move: shuffles, pyramids, slices, paddings, and sizes in code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracing.rule_case import Case, Net, chain, conv, images


def raw(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def down(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)


def _squeeze_and_excite(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    gate = net.grow(F.relu(net.squeeze(F.adaptive_avg_pool2d(x, 1))))
    return net.head(x * torch.sigmoid(gate))


def _squeeze_by_view(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    b, c, _, _ = x.size()
    gate = nn.AdaptiveAvgPool2d(1)(x).view(b, c)
    gate = net.grow(F.relu(net.squeeze(gate))).view(b, c, 1, 1)
    return net.head(x * torch.sigmoid(gate).expand_as(x))


def _spatial_gate(net: Any, x: Tensor) -> Tensor:
    """CBAM's second half: mean and largest of the channels gate every position."""
    x = net.stem(x)
    seen = torch.cat([x.mean(1, keepdim=True), torch.max(x, 1, keepdim=True)[0]], dim=1)
    return net.head(x * torch.sigmoid(net.gate(seen)))


def _channel_gate(net: Any, x: Tensor) -> Tensor:
    """CBAM's first half: mean and largest of the positions share two layers."""
    x = net.stem(x)
    largest = F.max_pool2d(x, x.shape[2:]).flatten(1)
    mean = x.mean((2, 3))
    gate = sum(net.grow(F.relu(net.squeeze(seen))) for seen in (mean, largest))
    return net.head(x * torch.sigmoid(gate)[:, :, None, None])


def _position_gate(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(x * torch.sigmoid(net.gate(x)))


def _halves_that_gate(net: Any, x: Tensor) -> Tensor:
    value, gate = net.wide(net.stem(x)).chunk(2, dim=1)
    return net.head(value * F.silu(gate))


def _shuffled_by_view(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    b, c, h, w = x.shape
    x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)
    return net.head(net.inner(x))


def _pyramid(net: Any, x: Tensor) -> Tensor:
    """Top-down with laterals, every level smoothed and counted in."""
    fine = net.stem(x)
    coarse = F.relu(net.down(fine))
    top = net.lateral_coarse(coarse)
    fine = net.lateral_fine(fine) + F.interpolate(top, size=fine.shape[-2:], mode="nearest")
    return net.head(F.relu(net.smooth(fine))) + F.interpolate(net.head(top), scale_factor=2)


def _unet(net: Any, x: Tensor) -> Tensor:
    skip = F.relu(net.stem(x))
    deep = F.relu(net.down(skip))
    deep = F.interpolate(deep, size=skip.shape[2:], mode="bilinear", align_corners=True)
    return net.head(net.mix(torch.cat([skip, deep], dim=1)))


def _unet_cropped(net: Any, x: Tensor) -> Tensor:
    """As the first U-Net: convolutions without padding, so that skips are cropped."""
    skip = F.relu(net.stem(x))
    deep = net.up(net.inner(F.max_pool2d(skip, 2)))
    top, left = ((a - b) // 2 for a, b in zip(skip.shape[2:], deep.shape[2:], strict=True))
    h, w = deep.shape[2:]
    skip = skip[:, :, top : top + h, left : left + w]
    return net.head(net.mix(torch.cat([skip, deep], dim=1)))


def _unet_padded(net: Any, x: Tensor) -> Tensor:
    skip = F.relu(net.stem(x))
    deep = net.up(net.inner(F.max_pool2d(skip, 2)))
    high, wide = (a - b for a, b in zip(skip.shape[2:], deep.shape[2:], strict=True))
    deep = F.pad(deep, [wide // 2, wide - wide // 2, high // 2, high - high // 2])
    return net.head(net.mix(torch.cat([skip, deep], dim=1)))


def _reused(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    for _ in range(2):
        x = torch.tanh(net.step(x))
    return net.head(x)


def _reused_on_levels(net: Any, x: Tensor) -> Tensor:
    fine = net.stem(x)
    coarse = net.down(fine)
    return net.head(net.shared(fine)).mean((2, 3)) + net.head(net.shared(coarse)).mean((2, 3))


def _layer_scale(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(x + net.gamma.view(1, -1, 1, 1) * net.inner(x))


def _layer_scale_last(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    y = net.wide(x.permute(0, 2, 3, 1))
    y = net.gamma * net.narrow(F.gelu(y))
    return net.head(x + y.permute(0, 3, 1, 2))


def _stacked(net: Any, x: Tensor) -> Tensor:
    return net.head(torch.stack([net.a(x), net.b(x), net.c(x)]).sum(0))


def _selected(net: Any, x: Tensor) -> Tensor:
    """Selective kernels: a softmax over branches, a weight each branch and channel."""
    both = torch.stack([net.a(x), net.b(x)], dim=1)
    seen = F.relu(net.squeeze(both.sum(1).mean((2, 3))))
    weight = net.select(seen).view(-1, 2, both.shape[2]).softmax(1)
    return net.head((both * weight[..., None, None]).sum(1))


def _split_by_tuple(net: Any, x: Tensor) -> Tensor:
    a, b, c = torch.split(net.stem(x), net.widths, dim=1)
    return net.head(torch.cat([net.left(a), b, net.right(c)], 1))


def _sliced_by_attribute(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(torch.cat([net.inner(x[:, : net.n]), x[:, net.n :]], 1))


def _sliced_by_literal(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(torch.cat([net.inner(x[:, :3]), x[:, 3:]], 1))


def _split_by_literals(net: Any, x: Tensor) -> Tensor:
    a, b = net.stem(x).split([2, 5], 1)
    return net.head(net.inner(a) + b.mean(1, keepdim=True))


def _halved_by_shape(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    half = x.shape[1] // 2
    return net.head(torch.cat([net.inner(x[:, :half]), x[:, half:]], 1))


def _picked(net: Any, x: Tensor) -> Tensor:
    """Channels in an order that a buffer names."""
    return net.head(net.inner(net.stem(x)[:, net.order]))


def _zeros_of_shape(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    b, c, h, w = x.shape
    total = x.new_zeros(b, c, h, w)
    for layer in (net.left, net.right):
        total = total + layer(x)
    return net.head(total)


def _recurrent_state(net: Any, x: Tensor) -> Tensor:
    """A state that starts at zeros of a width that the network keeps as a number."""
    state = torch.zeros(x.shape[0], net.width, x.shape[2], x.shape[3], dtype=x.dtype)
    for _ in range(2):
        state = torch.tanh(net.stem(x) + net.step(state))
    return net.head(state)


def _filled_in(net: Any, x: Tensor) -> Tensor:
    """Results that are written into a tensor made for them."""
    a, b = net.a(x), net.b(x)
    out = x.new_zeros(x.shape[0], a.shape[1] + b.shape[1], *x.shape[2:])
    out[:, : a.shape[1]] = a
    out[:, a.shape[1] :] = b
    return net.head(out)


def _padded_channels(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.wide(x) + F.pad(x, (0, 0, 0, 0, 1, 2)))


def _padded_positions(net: Any, x: Tensor) -> Tensor:
    return net.head(net.inner(F.pad(net.stem(x), (1, 0, 1, 0), value=0.5)))


def _places(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).flatten(2).transpose(1, 2) + net.places
    return net.head(torch.tanh(net.mix(x)).mean(1))


def _places_of_images(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(x + F.interpolate(net.places, size=x.shape[-2:], mode="bicubic"))


def _shapes_decide(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    while x.shape[-1] > 2:
        x = F.relu(net.down(x))
    if x.shape[2] == x.shape[3]:
        x = x.transpose(2, 3)
    return net.head(x)


def _unpooled(net: Any, x: Tensor) -> Tensor:
    x, places = F.max_pool2d(net.stem(x), 2, return_indices=True)
    return net.head(F.max_unpool2d(net.inner(x) * 0 + x, places, 2))


def _unpooled_modules(net: Any, x: Tensor) -> Tensor:
    """As SegNet: the pooled features go through layers of the same width before they return."""
    x, places = net.pool(net.stem(x))
    return net.head(net.unpool(net.inner(x), places, output_size=torch.Size([8, 8])))


def _flat_means(net: Any, x: Tensor) -> Tensor:
    x = F.adaptive_avg_pool2d(net.stem(x), 1)
    return net.head(F.relu(net.fc(x.view(x.size(0), x.size(1)))))


def _means(net: Any, x: Tensor) -> Tensor:
    return net.head(F.relu(net.fc(net.stem(x).mean([2, 3]))))


def _flat_positions(net: Any, x: Tensor) -> Tensor:
    x = torch.flatten(F.max_pool2d(net.stem(x), 4), 1)
    return net.head(F.relu(net.fc(x)))


def _flat_by_literal(net: Any, x: Tensor) -> Tensor:
    return net.head(F.max_pool2d(net.stem(x), 4).view(-1, 24))


def _dense(net: Any, x: Tensor) -> Tensor:
    features = [net.stem(x)]
    for layer in (net.a, net.b):
        features.append(F.relu(layer(torch.cat(features, 1))))
    return net.head(torch.cat(features, 1))


def _ghost(net: Any, x: Tensor) -> Tensor:
    """A ghost module: cheap copies, and only the first ``width`` of all are used."""
    x = net.stem(x)
    return net.head(torch.cat([x, net.cheap(x)], 1)[:, : net.width, :, :])


def _complex(net: Any, x: Tensor) -> Tensor:
    """A global filter: products with learned numbers in the space of frequencies."""
    x = net.stem(x)
    spectrum = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(net.filter)
    return net.head(torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho"))


def _deep_gate(net: Any, x: Tensor) -> Tensor:
    """ECA: a one-dimensional convolution over the channels themselves."""
    x = net.stem(x)
    gate = net.across(x.mean((2, 3)).unsqueeze(1)).squeeze(1)
    return net.head(x * torch.sigmoid(gate)[:, :, None, None])


def _dropped(net: Any, x: Tensor) -> Tensor:
    return net.head(F.dropout2d(net.drop(net.stem(x)), 0.5, training=net.training))


def permutation() -> nn.Module:
    net = Net(_picked, stem=conv(3, 6), inner=conv(6, 5), head=conv(5, 2))
    net.register_buffer("order", torch.tensor([5, 1, 0, 3, 2, 4]))
    return net


def two(width: int = 6, inner: int = 6, **others: Any) -> dict[str, Any]:
    return {"stem": conv(3, width), "inner": conv(width, inner), "head": conv(inner, 2), **others}


def squeezed(layer: Any) -> dict[str, Any]:
    return {"stem": conv(3, 6), "squeeze": layer(6, 4), "grow": layer(4, 6), "head": conv(6, 2)}


def pixels(layer: nn.Module, before: int, after: int) -> nn.Module:
    return chain(conv(3, before), layer, nn.Tanh(), conv(after, 5), head=conv(5, 2))


def unet(up: nn.Module | None, padding: int) -> dict[str, Any]:
    return {
        "stem": conv(3, 6),
        "inner": nn.Conv2d(6, 5, 3, padding=padding),
        **({"up": up} if up else {}),
        "mix": conv(6 + 4, 5),
        "head": conv(5, 2),
    }


def point(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1)


CASES = (
    Case("squeeze and excite", lambda: Net(_squeeze_and_excite, **squeezed(point)),
         "stem squeeze grow", 6 + 4),
    Case("squeeze and excite by views", lambda: Net(_squeeze_by_view, **squeezed(nn.Linear)),
         "stem squeeze grow", 6 + 4),
    Case("means and maxima of positions", lambda: Net(_channel_gate, **squeezed(nn.Linear)),
         "stem squeeze grow", 6 + 4),
    Case("means and maxima of channels",
         lambda: Net(_spatial_gate, stem=conv(3, 6), gate=conv(2, 1), head=conv(6, 2)),
         "stem", 6),
    Case("a gate a position",
         lambda: Net(_position_gate, stem=conv(3, 6), gate=conv(6, 1), head=conv(6, 2)),
         "stem", 6),
    Case("a gate that neighbours make",
         lambda: Net(_deep_gate, stem=conv(3, 6), head=conv(6, 2),
                     across=nn.Conv1d(1, 1, 3, padding=1, bias=False)),
         "", 0, stay={"stem": "in across"}),
    Case("halves that gate",
         lambda: Net(_halves_that_gate, stem=conv(3, 6), wide=conv(6, 10), head=conv(5, 2)),
         "stem wide", 6 + 5),
    Case("glu", lambda: chain(conv(3, 6), conv(6, 10), nn.GLU(1), head=conv(5, 2)), "a b", 6 + 5),
    Case("pixel shuffle", lambda: pixels(nn.PixelShuffle(2), 16, 4), "a d", 4 + 5),
    Case("pixel unshuffle", lambda: pixels(nn.PixelUnshuffle(2), 4, 16), "a d", 4 + 5),
    Case("channel shuffle", lambda: pixels(nn.ChannelShuffle(2), 8, 8), "a d", 4 + 5),
    Case("channel shuffle by views", lambda: Net(_shuffled_by_view, **two(8)),
         "stem inner", 4 + 6),
    Case("bilinear", lambda: pixels(nn.Upsample(scale_factor=2, mode="bilinear",
                                                align_corners=True), 6, 6), "a d", 6 + 5),
    Case("a pyramid",
         lambda: Net(_pyramid, stem=conv(3, 6), down=down(6, 7), lateral_fine=point(6, 5),
                     lateral_coarse=point(7, 5), smooth=conv(5, 5), head=conv(5, 2)),
         "stem down lateral_fine lateral_coarse smooth", 6 + 7 + 5),
    Case("U-Net that resizes",
         lambda: Net(_unet, stem=conv(3, 6), down=down(6, 4), mix=conv(10, 5), head=conv(5, 2)),
         "stem down mix", 6 + 4 + 5),
    Case("U-Net that crops",
         lambda: Net(_unet_cropped, **unet(nn.ConvTranspose2d(5, 4, 2, stride=2), 0)),
         "stem inner up mix", 6 + 5 + 4 + 5),
    Case("U-Net that pads",
         lambda: Net(_unet_padded, **unet(nn.ConvTranspose2d(5, 4, 2, stride=2), 0)),
         "stem inner up mix", 6 + 5 + 4 + 5, example=images(size=9)),
    Case("a layer that is used again",
         lambda: Net(_reused, stem=conv(3, 6), step=conv(6, 6), head=conv(6, 2)),
         "stem step", 6),
    Case("a layer for two levels",
         lambda: Net(_reused_on_levels, stem=conv(3, 6), down=down(6, 6), shared=conv(6, 5),
                     head=conv(5, 2)),
         "stem down shared", 6 + 5),
    Case("layer scale", lambda: Net(_layer_scale, **two(), gamma=raw(6)), "stem inner", 6),
    Case("layer scale, channels last",
         lambda: Net(_layer_scale_last, stem=conv(3, 6), wide=nn.Linear(6, 9),
                     narrow=nn.Linear(9, 6), gamma=raw(6), head=conv(6, 2)),
         "stem wide narrow", 6 + 9),
    Case("a sum of a stack",
         lambda: Net(_stacked, a=conv(3, 6), b=conv(3, 6, 1), c=conv(3, 6, 5), head=conv(6, 2)),
         "a b c", 6),
    Case("selective kernels",
         lambda: Net(_selected, a=conv(3, 6), b=conv(3, 6, 5), squeeze=nn.Linear(6, 4),
                     select=nn.Linear(4, 12), head=conv(6, 2)),
         "a b squeeze select", 6 + 4),
    Case("split by a tuple",
         lambda: Net(_split_by_tuple, stem=conv(3, 9), left=conv(2, 4), right=conv(4, 5),
                     head=conv(4 + 3 + 5, 2), widths=(2, 3, 4)),
         "stem left right", 2 + 3 + 4 + 4 + 5),
    Case("sliced by an attribute",
         lambda: Net(_sliced_by_attribute, stem=conv(3, 9), inner=conv(5, 4), head=conv(8, 2),
                     n=5),
         "stem inner", 9 + 4),
    Case("sliced by a literal",
         lambda: Net(_sliced_by_literal, stem=conv(3, 9), inner=conv(3, 4), head=conv(10, 2)),
         "stem inner", 6 + 4, stay={"stem": "fixed in code"}),
    Case("split by literals",
         lambda: Net(_split_by_literals, stem=conv(3, 7), inner=conv(2, 4), head=conv(4, 2)),
         "inner", 4, stay={"stem": "fixed in code"}),
    Case("halved by a shape",
         lambda: Net(_halved_by_shape, stem=conv(3, 8), inner=conv(4, 5), head=conv(9, 2)),
         "stem inner", 4 + 5),
    Case("channels that an index names", permutation, "inner", 5, stay={"stem": "by an index"}),
    Case("zeros of a shape",
         lambda: Net(_zeros_of_shape, stem=conv(3, 6), left=conv(6, 6), right=conv(6, 6),
                     head=conv(6, 2)),
         "stem left right", 6),
    Case("zeros of an attribute",
         lambda: Net(_recurrent_state, stem=conv(3, 6), step=conv(6, 6), head=conv(6, 2),
                     width=6),
         "stem step", 6),
    Case("written into zeros",
         lambda: Net(_filled_in, a=conv(3, 4), b=conv(3, 5), head=conv(9, 2)),
         "a b", 4 + 5),
    Case("padded by a module of three dimensions",
         lambda: Net(lambda net, x: net.head(net.wide(x := net.stem(x)) + net.pad(x)),
                     stem=conv(3, 4), wide=conv(4, 8), head=conv(8, 2),
                     pad=nn.ConstantPad3d((0, 0, 0, 0, 1, 3), 0.0)),
         "stem wide", 4 + 4),
    Case("padded channels",
         lambda: Net(_padded_channels, stem=conv(3, 5), wide=conv(5, 8), head=conv(8, 2)),
         "stem wide", 5, stay={"wide": "lcprune.ChannelPad"}),
    Case("padded positions", lambda: Net(_padded_positions, **two()), "stem inner", 6 + 6),
    Case("places of tokens",
         lambda: Net(_places, stem=conv(3, 6), places=raw(1, 64, 6), mix=nn.Linear(6, 5),
                     head=nn.Linear(5, 2)),
         "stem mix", 6 + 5),
    Case("places of images",
         lambda: Net(_places_of_images, stem=conv(3, 6), places=raw(1, 6, 4, 4),
                     head=conv(6, 2)),
         "stem", 6),
    Case("shapes decide",
         lambda: Net(_shapes_decide, stem=conv(3, 6), down=down(6, 6), head=conv(6, 2)),
         "stem down", 6),
    Case("max unpooling", lambda: Net(_unpooled, **two()), "stem inner", 6),
    Case("max unpooling by modules",
         lambda: Net(_unpooled_modules, **two(), pool=nn.MaxPool2d(2, return_indices=True),
                     unpool=nn.MaxUnpool2d(2)),
         "stem inner", 6),
    Case("means by a view",
         lambda: Net(_flat_means, stem=conv(3, 6), fc=nn.Linear(6, 5), head=nn.Linear(5, 2)),
         "stem fc", 6 + 5),
    Case("means",
         lambda: Net(_means, stem=conv(3, 6), fc=nn.Linear(6, 5), head=nn.Linear(5, 2)),
         "stem fc", 6 + 5),
    Case("flat positions",
         lambda: Net(_flat_positions, stem=conv(3, 6), fc=nn.Linear(24, 5), head=nn.Linear(5, 2)),
         "stem fc", 6 + 5),
    Case("flat by a literal",
         lambda: Net(_flat_by_literal, stem=conv(3, 6), head=nn.Linear(24, 2)),
         "", 0, stay={"stem": "fixed in code"}),
    Case("dense",
         lambda: Net(_dense, stem=conv(3, 6), a=conv(6, 4), b=conv(10, 5), head=conv(15, 2)),
         "stem a b", 6 + 4 + 5),
    Case("a ghost module",
         lambda: Net(_ghost, stem=conv(3, 6), cheap=conv(6, 6, groups=6), head=conv(11, 2),
                     width=11),
         "stem cheap", 6),
    Case("frequencies",
         lambda: Net(_complex, stem=conv(3, 6), filter=raw(6, 8, 5, 2), head=conv(6, 2)),
         "stem", 6),
    Case("dropout",
         lambda: Net(_dropped, stem=conv(3, 6), drop=nn.Dropout2d(), head=conv(6, 2)),
         "stem", 6),
)  # fmt: skip
