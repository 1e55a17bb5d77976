"""Attributes of modules follow what they count: read by the forward, or kept for later."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional as F

from lcprune.slimming import slim
from lcprune.tracing import trace
from oracle import check, plan_of, random_keep, randomise
from tracing.rule_case import chain, conv, images


def slimmed(model: nn.Module, example: Any) -> nn.Module:
    graph = trace(model, example)
    keep = np.ones(graph.prunable, dtype=np.bool_)
    for seed in range(9):
        if keep.all():
            keep = random_keep(graph, np.random.default_rng(seed))
    assert not keep.all()
    return slim(model, plan_of(graph, keep)).eval()


class Branches(nn.Module):
    """Two convolutions that become one, by sizes that only the fusion reads."""

    def __init__(self, reads: int, makes: int, groups: int = 1) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = reads, makes, groups
        self.sizes = [reads, makes]
        self.three = conv(reads, makes, groups=groups)
        self.one = nn.Conv2d(reads, makes, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.three(x) + self.one(x)

    def fused(self) -> nn.Conv2d:
        made = conv(self.in_channels, self.out_channels, groups=self.groups)
        with torch.no_grad():
            made.weight.copy_(self.three.weight + F.pad(self.one.weight, [1, 1, 1, 1]))
            made.bias.copy_(self.three.bias + self.one.bias)  # type: ignore[operator]
        return made


@pytest.mark.parametrize(("reads", "makes", "groups"), [(6, 8, 1), (6, 6, 6), (8, 8, 2), (6, 6, 1)])
def test_what_is_fused_after_the_cut_is_the_same_function(
    reads: int, makes: int, groups: int
) -> None:
    model = randomise(
        chain(conv(3, reads), Branches(reads, makes, groups), nn.ReLU(), head=conv(makes, 2)), 0
    )
    small = slimmed(model, images())
    part: Any = small.b
    assert (part.in_channels, part.out_channels) != (reads, makes)
    if reads != makes:
        assert part.sizes == [part.in_channels, part.out_channels]
    seen = small.a(images())
    assert torch.allclose(part.fused()(seen), part(seen), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["mobileone_s0", *(pytest.param(n, marks=pytest.mark.thorough)
                       for n in ("repvgg_a0", "fastvit_t8", "repvit_m0_9", "mobileone_s1"))],
)  # fmt: skip
def test_networks_of_timm_are_fused_after_the_cut(name: str) -> None:
    model = randomise(timm.create_model(name), 0)
    image = images(size=64)
    small = slimmed(model, image)
    with torch.no_grad():
        expected, found = small(image), reparameterize_model(small)(image)
    error = (expected - found).abs().max() / expected.abs().max()
    assert error < 1e-3


class Named(nn.Module):
    """Attributes of all kinds beside a layer of 6 channels between 4 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_dim, self.planes, self.stride, self.depth = 6, 6, 6, 6
        self.in_channels, self.width = 4, 4
        self.wide, self.narrow = conv(4, 6), conv(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.wide(x).relu())


def test_what_is_ambiguous_stays_and_is_told() -> None:
    model = randomise(chain(conv(3, 4), Named(), nn.ReLU(), head=conv(4, 2)), 0)
    graph = trace(model, images())
    found = {a.name for a in graph.attributes if a.module == "b"}
    assert found == {"hidden_dim", "planes", "in_channels"}
    assert [note for note in graph.notes if "width of b" in note]
    small: Any = slimmed(model, images())
    assert small.b.hidden_dim == small.b.planes == small.b.wide.out_channels
    assert small.b.in_channels == small.b.wide.in_channels
    assert (small.b.width, small.b.stride, small.b.depth) == (4, 6, 6)


class Reads(nn.Module):
    def __init__(self, how: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.how, self.width = how, 6
        self.stem, self.head = conv(3, 6), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.how(self, self.stem(x).relu()))


def _checked(net: Any, x: Tensor) -> Tensor:
    assert x.shape[1] == net.width, "another width"
    return x


def _refused(net: Any, x: Tensor) -> Tensor:
    if x.size(1) != net.width:
        raise ValueError("another width")
    return x


def _repeated(net: Any, x: Tensor) -> Tensor:
    for _ in range(net.width):
        x = torch.tanh(x)
    return x


def _both_equal(net: Any, x: Tensor) -> Tensor:
    y = net.head(x)
    return x + 1 if net.stem(torch.ones(1, 3, 8, 8).to(x)).shape[1] == x.shape[1] else y


@pytest.mark.parametrize(("how", "follows"), [(_checked, True), (_refused, True),
                                              (_repeated, False), (_both_equal, None)])  # fmt: skip
def test_a_width_that_is_compared_follows_and_one_that_counts_something_else_stays(
    how: Callable[[Any, Tensor], Tensor], follows: bool | None
) -> None:
    model = randomise(Reads(how), 0)
    graph = trace(model, images())
    assert graph.prunable == 6
    assert check(model, images(), 0, graph).error <= 1e-9
    if follows is not None:
        assert follows is any(a.name == "width" for a in graph.attributes)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_instance_norm_counts_channels_and_not_images(affine: bool, dims: int) -> None:
    kinds = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    convolution: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    norm = kinds[dims - 1](6, affine=affine, track_running_stats=affine)

    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.mix = convolution(3, 6, 1), norm, convolution(6, 5, 1)
            self.head = nn.Linear(5, 4)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            x = self.mix(self.norm(self.stem(torch.cat([left, right]))).relu()).relu()
            first, second = self.head(x.flatten(2).mean(2)).chunk(2, 0)
            return (first - second).square()

    generator = torch.Generator().manual_seed(0)
    views = tuple(torch.randn(1, 3, *[5] * dims, generator=generator) for _ in range(2))
    model = randomise(Views(), 0)
    graph = trace(model, views)
    assert graph.prunable == 6 + 5
    assert check(model, views, 0, graph).error <= 1e-9
    small: Any = slimmed(model, views)
    assert small.norm.num_features == small.stem.out_channels < 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(*views)
        small.train()(*views)


class Padded(nn.Module):
    """A residual sum of channels that zeros make as many as there have to be."""

    def __init__(self, amounts: Callable[[Any, Tensor, Tensor], list[int]]) -> None:
        super().__init__()
        self.amounts, self.before, self.after, self.both, self.planes = amounts, 1, 3, 2, 8
        self.stem, self.wide, self.head = conv(3, 4), conv(4, 8), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.wide(x)
        return self.head(y + F.pad(x, [0, 0, 0, 0, *self.amounts(self, x, y)]))


@pytest.mark.parametrize(
    ("amounts", "groups"),
    [
        (lambda net, x, y: [net.before, net.after], 8),
        (lambda net, x, y: [net.both, net.both], 6),
        (lambda net, x, y: [0, y.shape[1] - x.shape[1]], 8),
        (lambda net, x, y: [net.planes // 4, net.planes // 4], 6),
        (lambda net, x, y: [2, 2], 4),
    ],
    ids=["two attributes", "one attribute twice", "shapes", "a part of an attribute", "literals"],
)
def test_padding_of_channels_follows_where_code_keeps_its_size(
    amounts: Callable[[Any, Tensor, Tensor], list[int]], groups: int
) -> None:
    model = randomise(Padded(amounts), 0)
    graph = trace(model, images())
    assert graph.prunable == groups
    assert check(model, images(), 0, graph).error <= 1e-9
    stay = [u.reason for u in graph.untouched if u.tensor == "wide.weight"]
    assert bool(stay) == (groups == 4)
    assert all("lcprune.ChannelPad" in reason for reason in stay)
