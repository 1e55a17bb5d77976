"""Products of computed tensors: attention in the ways that people write it, einsum, gates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracing.rule_case import Case, Net


def raw(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def tokens(net: Any, x: Tensor) -> Tensor:
    """Pixels as tokens, channels last."""
    return net.stem(x).flatten(2).transpose(1, 2)


def answer(net: Any, x: Tensor) -> Tensor:
    return net.head(x.mean(1))


def stem(width: int) -> nn.Conv2d:
    return nn.Conv2d(3, width, 3, stride=2, padding=1)


def joint(width: int = 8, inner: int = 8, **others: Any) -> dict[str, Any]:
    """One layer for queries, keys and values."""
    return {
        "stem": stem(width),
        "qkv": nn.Linear(width, 3 * inner),
        "out": nn.Linear(inner, 6),
        "head": nn.Linear(6, 2),
        **others,
    }


def apart(width: int = 8, inner: int = 6, **others: Any) -> dict[str, Any]:
    """A layer each for queries, keys and values."""
    return {
        "stem": stem(width),
        "q": nn.Linear(width, inner),
        "k": nn.Linear(width, inner, bias=False),
        "v": nn.Linear(width, 5),
        "head": nn.Linear(5, 2),
        **others,
    }


def _heads_of_width(net: Any, x: Tensor) -> Tensor:
    """As in timm's first vision transformers: the width of a head comes from the tokens' width."""
    x = tokens(net, x)
    b, n, c = x.shape
    qkv = net.qkv(x).reshape(b, n, 3, net.num_heads, c // net.num_heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    attention = ((q @ k.transpose(-2, -1)) * net.scale).softmax(-1)
    return answer(net, net.out((attention @ v).transpose(1, 2).reshape(b, n, c)))


def _residual_heads_of_width(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    b, n, c = x.shape
    qkv = net.qkv(net.norm(x)).reshape(b, n, 3, net.num_heads, c // net.num_heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    attention = ((q @ k.transpose(-2, -1)) * net.scale).softmax(-1)
    x = x + net.out((attention @ v).transpose(1, 2).reshape(b, n, c))
    return answer(net, x)


def _heads_of_attribute(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    b, n, _ = x.shape
    qkv = net.qkv(x).reshape(b, n, 3, net.num_heads, net.head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    attention = ((q * net.scale) @ k.transpose(-2, -1)).softmax(-1)
    x = (attention @ v).transpose(1, 2).reshape(b, n, net.attn_dim)
    return answer(net, net.out(x))


def _heads_of_minus_one(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    b, n, _ = x.shape
    q, k, v = net.qkv(x).view(b, n, 3, 2, -1).permute(2, 0, 3, 1, 4)
    attention = torch.softmax(torch.matmul(q, k.mT) * 0.5, dim=-1)
    return answer(net, net.out((attention @ v).transpose(1, 2).flatten(2)))


def _chunked(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.qkv(tokens(net, x)).chunk(3, dim=-1)
    return answer(net, net.out(F.scaled_dot_product_attention(q, k, v, scale=0.4)))


def _fused_heads(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    b, n, _ = x.shape
    q, k, v = net.qkv(x).reshape(b, n, 3, net.num_heads, net.head_dim).permute(2, 0, 3, 1, 4)
    x = F.scaled_dot_product_attention(q, k, v, scale=net.scale)
    return answer(net, net.out(x.transpose(1, 2).reshape(b, n, net.num_heads * net.head_dim)))


def _fused_without_scale(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    return answer(net, F.scaled_dot_product_attention(net.q(x), net.k(x), net.v(x)))


def _single_head(net: Any, x: Tensor) -> Tensor:
    """A non-local block: every pixel looks at every other."""
    x = tokens(net, x)
    attention = torch.softmax(torch.bmm(net.q(x), net.k(x).transpose(1, 2)), dim=-1)
    return answer(net, torch.bmm(attention, net.v(x)))


def _scaled_by_its_width(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    q = net.q(x)
    attention = (q @ net.k(x).mT / q.shape[-1] ** 0.5).softmax(-1)
    return answer(net, attention @ net.v(x))


def _linear_attention(net: Any, x: Tensor) -> Tensor:
    """Efficient attention: queries and keys are shares over channels and over positions."""
    x = tokens(net, x)
    q, k = net.q(x).softmax(-1), net.k(x).softmax(-2)
    return answer(net, q @ (k.mT @ net.v(x)))


def _keys_over_channels(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    q, k = net.q(x).relu(), net.k(x).softmax(-1)
    return answer(net, q @ (k.mT @ net.v(x)))


def _channel_attention(net: Any, x: Tensor) -> Tensor:
    """Cross-covariance attention: channels look at channels."""
    x = tokens(net, x)
    q, k = F.relu(net.q(x)), F.relu(net.k(x))
    attention = (k.mT @ q * 0.1).softmax(-1)
    return answer(net, net.mix(net.v(x) @ attention))


def _class_query(net: Any, x: Tensor) -> Tensor:
    """Cross attention: a learned query reads the tokens."""
    x = tokens(net, x)
    query = net.q(net.query.expand(x.shape[0], -1, -1))
    attention = (query @ net.k(x).mT * 0.4).softmax(-1)
    return answer(net, attention @ net.v(x))


def _class_token(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    x = torch.cat([net.token.expand(x.shape[0], -1, -1), x], 1) + net.places
    attention = (net.q(x) @ net.k(x).mT * 0.4).softmax(-1)
    return net.head((attention @ net.v(x))[:, 0])


def _einsum_attention(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    attention = torch.einsum("bnc,bmc->bnm", net.q(x), net.k(x)).softmax(-1)
    return answer(net, torch.einsum("bnm,bmc->bnc", attention, net.v(x)))


def _module_attention(net: Any, x: Tensor) -> Tensor:
    x = tokens(net, x)
    return answer(net, net.mix(x + net.attention(x, x, x, need_weights=False)[0]))


def _biased_windows(net: Any, x: Tensor) -> Tensor:
    """Windows of two by two pixels, rolled, with a learned bias a pair of places (as in Swin)."""
    x = net.stem(x).permute(0, 2, 3, 1)
    b, h, w, c = x.shape
    x = torch.roll(x, (-1, -1), (1, 2))
    x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    n = x.shape[0]
    q, k, v = net.qkv(x).reshape(n, 4, 3, net.num_heads, c // net.num_heads).permute(2, 0, 3, 1, 4)
    bias = net.table[net.places.view(-1)].view(4, 4, -1).permute(2, 0, 1)
    attention = (q * net.scale @ k.mT + bias).softmax(-1)
    x = net.out((attention @ v).transpose(1, 2).reshape(n, 4, c))
    x = x.view(b, h // 2, w // 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, -1)
    return net.head(torch.roll(x, (1, 1), (1, 2)).mean((1, 2)))


def _einsum_weight(net: Any, x: Tensor) -> Tensor:
    return net.head(torch.einsum("bchw,oc->bohw", net.stem(x), net.mix).mean((2, 3)))


def _left_matrix(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).flatten(2)
    return net.head((net.mix @ x).mean(2))


def _bilinear(net: Any, x: Tensor) -> Tensor:
    """Bilinear pooling: every channel of one stream times every one of the other."""
    a, b = net.a(x).flatten(2), net.b(x).flatten(2)
    return net.mix((a @ b.mT) / 16).mean(1) @ net.head


def _shared_table(net: Any, x: Tensor) -> Tensor:
    """An embedding read by two layers."""
    x = net.table(x)
    return net.head(torch.tanh(net.left(x) * net.right(x)).mean(1))


HEADS = {"num_heads": 2, "scale": 0.5}
LOOKUP = torch.randint(0, 9, (16,), generator=torch.Generator().manual_seed(0))


def windows() -> nn.Module:
    net = Net(_biased_windows, **joint(**HEADS), table=raw(9, 2))
    net.register_buffer("places", LOOKUP.clone())
    return net


INDICES = torch.randint(0, 10, (1, 7), generator=torch.Generator().manual_seed(0))

CASES = (
    Case(
        "heads whose width comes from the tokens",
        lambda: Net(_heads_of_width, **joint(**HEADS)),
        "stem qkv out",
        4 + 6,
    ),
    Case(
        "heads in a residual stream",
        lambda: Net(_residual_heads_of_width, stem=stem(8), norm=nn.LayerNorm(8),
                    qkv=nn.Linear(8, 24), out=nn.Linear(8, 8), head=nn.Linear(8, 2), **HEADS),
        "stem qkv out",
        4,
    ),
    Case(
        "heads whose width is an attribute",
        lambda: Net(_heads_of_attribute, **joint(**HEADS), head_dim=4, attn_dim=8),
        "stem qkv out",
        8 + 4 + 6,
    ),
    Case(
        "heads whose width is left open",
        lambda: Net(_heads_of_minus_one, **joint()),
        "stem qkv out",
        8 + 4 + 6,
    ),
    Case("chunks", lambda: Net(_chunked, **joint()), "stem qkv out", 8 + 8 + 6),
    Case(
        "fused attention of several heads",
        lambda: Net(_fused_heads, **joint(**HEADS), head_dim=4),
        "stem qkv out",
        8 + 4 + 6,
    ),
    Case(
        "fused attention whose scale follows its width",
        lambda: Net(_fused_without_scale, **apart()),
        "stem v",
        8 + 5,
        stay={"q": "scale of attention", "k": "scale of attention"},
    ),
    Case("a single head", lambda: Net(_single_head, **apart()), "stem q k v", 8 + 6 + 5),
    Case(
        "a scale that is computed from the width",
        lambda: Net(_scaled_by_its_width, **apart()),
        "stem v",
        8 + 5,
        stay={"q": "computed from their number", "k": "computed from their number"},
    ),
    Case("linear attention", lambda: Net(_linear_attention, **apart()), "stem q k v", 8 + 6 + 5),
    Case("shares over keys", lambda: Net(_keys_over_channels, **apart()), "stem q k v", 19),
    Case(
        "channels that look at channels",
        lambda: Net(_channel_attention, stem=stem(7), q=nn.Linear(7, 6), k=nn.Linear(7, 5),
                    v=nn.Linear(7, 5), mix=nn.Linear(6, 4), head=nn.Linear(4, 2)),
        "stem q k v mix",
        7 + 6 + 5 + 4,
    ),
    Case(
        "a learned query",
        lambda: Net(_class_query, **apart(), query=raw(1, 1, 8)),
        "stem q k v",
        8 + 6 + 5,
    ),
    Case(
        "a class token and places",
        lambda: Net(_class_token, **apart(), token=raw(1, 1, 8), places=raw(1, 17, 8)),
        "stem q k v",
        8 + 6 + 5,
    ),
    Case("einsum attention", lambda: Net(_einsum_attention, **apart()), "stem q k v", 8 + 6 + 5),
    Case(
        "PyTorch's module",
        lambda: Net(_module_attention, stem=stem(8), mix=nn.Linear(8, 5), head=nn.Linear(5, 2),
                    attention=nn.MultiheadAttention(8, 2, batch_first=True)),
        "mix",
        5,
        stay={
            "stem": "numbers of its own",
            "attention.in_proj_weight": "numbers of its own",
            "attention.out_proj": "numbers of its own",
        },
    ),
    Case("rolled windows", windows, "stem qkv out", 4 + 6),
    Case(
        "einsum with a parameter",
        lambda: Net(_einsum_weight, stem=stem(6), mix=raw(5, 6), head=nn.Linear(5, 2)),
        "stem mix",
        6 + 5,
    ),
    Case(
        "a parameter from the left",
        lambda: Net(_left_matrix, stem=stem(6), mix=raw(5, 6), head=nn.Linear(5, 2)),
        "stem mix",
        6 + 5,
    ),
    Case(
        "bilinear pooling",
        lambda: Net(_bilinear, a=stem(5), b=stem(6), mix=nn.Linear(6, 4), head=raw(4, 2)),
        "a b mix",
        5 + 6 + 4,
    ),
    Case(
        "a table with two readers",
        lambda: Net(_shared_table, table=nn.Embedding(10, 6), left=nn.Linear(6, 5),
                    right=nn.Linear(6, 5), head=nn.Linear(5, 2)),
        "table left right",
        6 + 5,
        example=INDICES,
    ),
)  # fmt: skip
