"""Attention: however its scale is computed, whole heads can go or the places in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracing.rule_case import Case, images

WIDTH, HEADS = 12, 3
HEAD = WIDTH // HEADS


class Attention(nn.Module):
    """Tokens of an image attend to one another; ``weigh`` says how, given heads of ``HEAD``."""

    def __init__(self, weigh: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weigh = weigh
        self.heads, self.head_dim, self.scale = HEADS, HEAD, HEAD**-0.5
        self.register_buffer("width", torch.tensor(float(HEAD)))
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().flatten(2).transpose(1, 2)
        n, count = x.shape[0], x.shape[1]
        q, k, v = (
            part(x).view(n, count, self.heads, self.head_dim).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        y = self.weigh(self, q, k, v).transpose(1, 2)
        y = y.reshape(n, count, self.heads * self.head_dim)
        return self.head((x + self.out(y)).mean(1))


class FromTheWidth(nn.Module):
    """The width of a head is that of the tokens, or an attribute, divided by the heads."""

    def __init__(self, read: bool) -> None:
        super().__init__()
        self.read, self.heads, self.dim = read, HEADS, WIDTH
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.qkv, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().flatten(2).transpose(1, 2)
        n, count, width = x.shape
        if not self.read:
            width = self.dim
        part = width // self.heads
        q, k, v = self.qkv(x).reshape(n, count, 3, self.heads, part).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(part)).softmax(-1)
        return self.head((weights @ v).transpose(1, 2).reshape(n, count, width).mean(1))


def _scaled(scale: Callable[[Any, Tensor], Any]) -> Callable[..., Tensor]:
    def weigh(net: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) * scale(net, q)).softmax(-1) @ v

    return weigh


def _by_both(net: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scale = q.shape[-1] ** -0.25
    return ((q * scale) @ (k * scale).transpose(-2, -1)).softmax(-1) @ v


def _by_einsum(net: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bhnd,bhmd->bhnm", q, k) / math.sqrt(net.head_dim)
    return torch.einsum("bhnm,bhmd->bhnd", scores.softmax(-1), v)


def _by_batches(net: Any, q: Tensor, k: Tensor, v: Tensor, by: float = 0.0) -> Tensor:
    n, _, count, _ = q.shape
    a, b, c = (t.reshape(n * net.heads, count, net.head_dim) for t in (q, k, v))
    scores = torch.baddbmm(
        a.new_zeros(1), a, b.transpose(1, 2), beta=0, alpha=by or 1 / net.head_dim**0.5
    )
    return torch.bmm(scores.softmax(-1), c).view(n, net.heads, count, net.head_dim)


def _by_pytorch(scale: Callable[[Any, Tensor], Any]) -> Callable[..., Tensor]:
    return lambda net, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=scale(net, q))


def _rotated(net: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    half = q.shape[-1] // 2
    angles = torch.arange(q.shape[2]).to(q)[:, None] / 100 ** (torch.arange(half).to(q) / half)

    def turned(t: Tensor) -> Tensor:
        a, b = t[..., :half], t[..., half:]
        return torch.cat(
            [a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1
        )

    return (turned(q) @ turned(k).transpose(-2, -1) * net.head_dim**-0.5).softmax(-1) @ v


def _with_share() -> nn.Module:
    model = Attention(_scaled(lambda net, q: net.share))
    model.share = 1.0 / HEAD  # type: ignore[assignment]
    return model


HEADS_GO: dict[str, Callable[..., Tensor]] = {
    "an attribute": _scaled(lambda net, q: net.head_dim**-0.5),
    "a shape": _scaled(lambda net, q: q.shape[-1] ** -0.5),
    "a size": _scaled(lambda net, q: q.size(3) ** -0.5),
    "a root of an attribute": _scaled(lambda net, q: 1 / math.sqrt(net.head_dim)),
    "a root of a shape": _scaled(lambda net, q: 1 / math.sqrt(q.shape[-1])),
    "a power": _scaled(lambda net, q: 1.0 / q.shape[-1] ** 0.5),
    "a float": _scaled(lambda net, q: float(q.shape[-1]) ** -0.5),
    "NumPy": _scaled(lambda net, q: 1 / np.sqrt(q.shape[-1])),
    "a tensor": _scaled(lambda net, q: 1 / torch.sqrt(torch.tensor(q.shape[-1]).to(q))),
    "a tensor of an attribute": _scaled(lambda net, q: q.new_tensor(net.head_dim).rsqrt()),
    "a filled tensor": _scaled(lambda net, q: q.new_full((1,), q.shape[-1]).rsqrt()),
    "a share of a float": _scaled(lambda net, q: 1.0 / net.head_dim),
    "a share of a float by a shape": _scaled(lambda net, q: 1.0 / q.shape[-1]),
    "a share of queries": lambda net, q, k, v: (
        ((q * (1.0 / net.head_dim)) @ k.transpose(-2, -1)).softmax(-1) @ v
    ),
    "a share in batches": lambda net, q, k, v: _by_batches(net, q, k, v, 1.0 / net.head_dim),
    "roots on both sides": _by_both,
    "einsum": _by_einsum,
    "batches of heads": _by_batches,
    "PyTorch's own": _by_pytorch(lambda net, q: None),
    "PyTorch's with an attribute": _by_pytorch(lambda net, q: net.head_dim**-0.5),
    "PyTorch's with a shape": _by_pytorch(lambda net, q: 1 / math.sqrt(q.shape[-1])),
    "rotated": _rotated,
}

PLACES_GO: dict[str, Callable[..., Tensor]] = {
    "a number made before": _scaled(lambda net, q: net.scale),
    "a buffer": _scaled(lambda net, q: net.width.rsqrt()),
    "PyTorch's with a number made before": _by_pytorch(lambda net, q: net.scale),
}

SMALL = images()[..., :4, :4]
CASES = (
    *(
        Case(f"attention scaled by {name}", lambda weigh=weigh: Attention(weigh),  # type: ignore[misc]
             "stem q k v out", WIDTH + HEADS, example=SMALL)
        for name, weigh in HEADS_GO.items()
    ),
    *(
        Case(f"attention scaled by {name}", lambda weigh=weigh: Attention(weigh),  # type: ignore[misc]
             "stem q k v out", WIDTH + HEAD, example=SMALL)
        for name, weigh in PLACES_GO.items()
    ),
    Case("attention scaled by a share made before", _with_share, "stem q k v out", WIDTH + HEAD,
         example=SMALL),
    Case("attention by the width of the tokens", lambda: FromTheWidth(True), "stem qkv", HEADS,
         example=SMALL),
    Case("attention by an attribute of the width", lambda: FromTheWidth(False), "stem qkv",
         WIDTH + HEADS, example=SMALL),
)  # fmt: skip
