"""Less common ways to compute: picks, repeats, blocks, statistics, distances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracing.rule_case import Case, Net, conv, images


def _best_tokens(net: Any, x: Tensor) -> Tensor:
    """The tokens that score highest, picked by an index of their width."""
    x = net.stem(x).flatten(2).transpose(1, 2)
    best = net.score(x).squeeze(-1).topk(5, dim=1).indices
    x = torch.gather(x, 1, best.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    return net.head(torch.tanh(net.mix(x)).mean(1))


def _best_tokens_of_literal_width(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).flatten(2).transpose(1, 2)
    best = net.score(x).squeeze(-1).topk(5, dim=1).indices
    x = torch.gather(x, 1, best.unsqueeze(-1).expand(-1, -1, 6))
    return net.head(torch.tanh(net.mix(x)).mean(1))


def _pillars(net: Any, x: Tensor) -> Tensor:
    """Features of points, put where the points lie on a map."""
    features = net.stem(x).flatten(2)[0, :, :16]
    places = (torch.arange(16) * 3)[None].expand_as(features)
    seen = features.new_zeros(features.shape[0], 64).scatter(1, places, features)
    seen.scatter_add_(1, places + 1, features)
    return net.head(net.inner(seen.view(1, -1, 8, 8)))


def _messages(net: Any, x: Tensor) -> Tensor:
    """Features of nodes, summed and the largest taken along the edges of a graph."""
    nodes = net.stem(x).flatten(2)[0].t()
    edges = torch.arange(40) * 7 % 64
    sent, to = nodes[edges], (edges * 3 % 64)[:, None].expand(-1, nodes.shape[1])
    most = torch.zeros_like(nodes).scatter_reduce(0, to, sent, "amax")
    total = torch.zeros_like(nodes).scatter_add(0, to, sent)
    return net.head((most + total).t().reshape(1, -1, 8, 8))


def _one_of_the_channels(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    best = net.score(x.mean((2, 3))).argmax(1, keepdim=True)
    chosen = x.new_zeros(x.shape[:2]).scatter_(1, best, 1.0)
    return net.head(x * chosen[..., None, None])


def _one_hot(net: Any, x: Tensor) -> Tensor:
    scores = net.head(net.stem(x)).mean((2, 3))
    return scores * torch.zeros_like(scores).scatter_(1, scores.argmax(1, keepdim=True), 1.0)


def _products_of_channels(net: Any, x: Tensor) -> Any:
    """What becomes of the matrix of all products: its trace, its diagonal, how far it is from 1."""
    x = net.stem(x)
    features = x.flatten(2)
    matrix = (features @ features.transpose(1, 2))[0] / 64
    off = matrix - torch.eye(matrix.shape[0], dtype=x.dtype)
    return net.head(x), torch.trace(matrix), matrix.diagonal().square().sum(), off.square().sum()


def _maxout(net: Any, x: Tensor) -> Tensor:
    x = net.wide(net.stem(x))
    b, c, h, w = x.shape
    return net.head(x.view(b, c // 2, 2, h, w).max(2).values)


def _shifted(net: Any, x: Tensor) -> Tensor:
    """A temporal shift: an eighth of the channels from the frame before, as many from the next."""
    b, t = x.shape[:2]
    x = net.stem(x.flatten(0, 1))
    x = x.view(b, t, *x.shape[1:])
    fold = x.shape[2] // 4
    out = torch.zeros_like(x)
    out[:, :-1, :fold] = x[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    return net.head(net.inner(out.flatten(0, 1)))


def _frames(net: Any, x: Tensor) -> Tensor:
    """Frames as a batch, and back to a sequence."""
    b, t = x.shape[:2]
    x = net.stem(x.flatten(0, 1))
    x = x.view(b, t, *x.shape[1:]).mean(1)
    return net.head(net.inner(x))


def _repeated(net: Any, x: Tensor) -> Tensor:
    return net.head(net.inner(net.stem(x).repeat(1, 2, 1, 1)))


def _interleaved(net: Any, x: Tensor) -> Tensor:
    return net.head(net.inner(net.stem(x).repeat_interleave(2, dim=1)))


def _every_other(net: Any, x: Tensor) -> Tensor:
    return net.head(net.inner(net.stem(x)[:, ::2]))


def _first_channel(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.inner(x) * torch.sigmoid(x[:, :1]))


def _deviations(net: Any, x: Tensor) -> Tensor:
    """A gate of mean and standard deviation over positions, and a statistic over channels."""
    x = net.stem(x)
    seen = torch.stack([x.mean((2, 3)), x.std((2, 3))], 2)
    gate = net.across(seen).squeeze(2)
    x = x / (x.var(1, keepdim=True) + 1).sqrt()
    return net.head(net.inner(x * torch.sigmoid(gate)[..., None, None]))


def _prototypes(net: Any, x: Tensor) -> Tensor:
    """Distances to learned points."""
    x = net.stem(x).mean((2, 3))
    return -torch.cdist(x, net.points)


def _prototypes_by_hand(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).mean((2, 3))
    return -(x.unsqueeze(1) - net.points).square().sum(-1)


def _cosine(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).mean((2, 3))
    return F.cosine_similarity(x.unsqueeze(1), net.points.unsqueeze(0), dim=-1)


def _correlation(net: Any, x: Tensor) -> Tensor:
    """A cost volume: the product of two maps at every shift."""
    a, b = net.stem(x), net.stem(x.flip(3))
    b = F.pad(b, (1, 1))
    w = a.shape[3]
    volume = torch.stack([(a * b[..., i : i + w]).mean(1) for i in range(3)], 1)
    return net.head(volume)


def _sampled(net: Any, x: Tensor) -> Tensor:
    """A spatial transformer: the map is read where a small network says."""
    x = net.stem(x)
    move = 0.1 * torch.tanh(net.move(x.mean((2, 3)))).view(-1, 2, 3)
    grid = F.affine_grid(move, list(x.shape), align_corners=False)
    return net.head(net.inner(F.grid_sample(x, grid, align_corners=False)))


def _positions_mixed(net: Any, x: Tensor) -> Tensor:
    """An MLP-mixer: a layer over positions, then one over channels."""
    x = net.stem(x).flatten(2)
    x = x + net.across(torch.tanh(net.within(x)))
    return net.head(F.gelu(net.inner(x.transpose(1, 2))).mean(1))


def _running_sum(net: Any, x: Tensor) -> Tensor:
    return net.head(net.inner(net.stem(x).cumsum(3) / 8))


def _sum_over_channels(net: Any, x: Tensor) -> Tensor:
    return net.head(net.inner(net.stem(x).cumsum(1) / 8))


def _fixed_noise(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.inner(x + torch.ones_like(x) * 0.1 + torch.full(x.shape, 0.2).to(x)))


def _coordinates(net: Any, x: Tensor) -> Tensor:
    """CoordConv: two maps of coordinates beside the channels."""
    x = net.stem(x)
    b, _, h, w = x.shape
    rows = torch.linspace(-1, 1, h, dtype=x.dtype).view(1, 1, h, 1).expand(b, 1, h, w)
    columns = torch.linspace(-1, 1, w, dtype=x.dtype).view(1, 1, 1, w).expand(b, 1, h, w)
    return net.head(torch.tanh(net.inner(torch.cat([x, rows, columns], 1))))


def _minibatch_deviation(net: Any, x: Tensor) -> Tensor:
    """One more map: the mean over everything."""
    x = net.stem(x)
    seen = x.mean().expand(x.shape[0], 1, *x.shape[2:])
    return net.head(torch.tanh(net.inner(torch.cat([x, seen], 1))))


def _modulated(net: Any, x: Tensor) -> Tensor:
    """StyleGAN 2: the weight is scaled by a style and brought back to unit length."""
    style = net.style(x.mean((2, 3)))
    x = net.stem(x)
    weight = net.kernel[None] * style[:, None, :, None, None]
    weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
    b, c, h, w = x.shape
    weight = weight.view(-1, *weight.shape[2:])
    x = F.conv2d(x.reshape(1, b * c, h, w), weight, padding=1, groups=b)
    return net.head(torch.tanh(x.view(b, -1, h, w)))


def _dynamic(net: Any, x: Tensor) -> Tensor:
    """Kernels that are a mixture, weighed by what is seen."""
    x = net.stem(x)
    weight = torch.softmax(net.weigh(x.mean((2, 3))), 1)
    kernel = (weight.view(-1, 1, 1, 1, 1) * net.kernels).sum(0)
    return net.head(torch.tanh(F.conv2d(x, kernel, padding=1)))


def _involution(net: Any, x: Tensor) -> Tensor:
    """A kernel for every position and group of channels, from the position itself."""
    x = net.stem(x)
    b, c, h, w = x.shape
    kernel = net.kernel(x).view(b, 2, 9, h, w).unsqueeze(2)
    patches = F.unfold(x, 3, padding=1).view(b, 2, c // 2, 9, h, w)
    return net.head((kernel * patches).sum(3).view(b, c, h, w))


def _coordinate_attention(net: Any, x: Tensor) -> Tensor:
    """Gates by row and by column from one shared layer."""
    x = net.stem(x)
    _, _, h, w = x.size()
    seen = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2)
    rows, columns = torch.split(F.hardswish(net.squeeze(seen)), [h, w], dim=2)
    gate = net.rows(rows).sigmoid() * net.columns(columns.permute(0, 1, 3, 2)).sigmoid()
    return net.head(x * gate)


def _res2(net: Any, x: Tensor) -> Tensor:
    """Res2Net: chunks that feed one another."""
    a, b, c = torch.chunk(net.stem(x), 3, 1)
    b = net.first(b)
    c = net.second(c + b)
    return net.head(torch.cat([a, b, c], 1))


def _csp(net: Any, x: Tensor) -> Tensor:
    """YOLO's C2f: every step is kept beside the two halves."""
    kept = list(net.stem(x).chunk(2, 1))
    kept.extend(step(kept[-1]) for step in net.steps)
    return net.head(torch.cat(kept, 1))


def _focus(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    parts = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
    return net.head(net.inner(torch.cat(parts, 1)))


def _wide_patches(net: Any, x: Tensor) -> Tensor:
    patches = F.unfold(net.stem(x), (2, 3), padding=(0, 1), stride=(2, 1))
    return net.head(F.fold(patches, (8, 8), (2, 3), padding=(0, 1), stride=(2, 1)))


def _parts_as_channels(net: Any, x: Tensor) -> Tensor:
    parts = torch.view_as_real(torch.fft.fft2(net.stem(x)))
    return net.head(torch.tanh(net.inner(parts.permute(0, 1, 4, 2, 3).flatten(1, 2))))


def _frequencies_of_channels(net: Any, x: Tensor) -> Tensor:
    """As FNet: a transform over tokens and over channels."""
    x = net.stem(x).flatten(2).transpose(1, 2)
    return net.head(torch.tanh(net.inner(torch.fft.fft2(x).real)).mean(1))


def _normed_twice(net: Any, x: Tensor) -> Tensor:
    return net.head(net.coarse(F.silu(net.fine(net.stem(x)))))


def _normed_together(net: Any, x: Tensor) -> Tensor:
    return net.head(net.norm(torch.cat([net.left(x), net.right(x)], 1)))


def _rows_of_a_table(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(x + net.table[net.places].permute(2, 0, 1)[None])


def placed() -> nn.Module:
    net = Net(_rows_of_a_table, stem=conv(3, 6), table=raw(9, 6), head=conv(6, 2))
    places = torch.randint(0, 9, (8, 8), generator=torch.Generator().manual_seed(0))
    net.register_buffer("places", places)
    return net


def two(width: int = 6, wide: int | None = None, inner: int = 5, **others: Any) -> dict[str, Any]:
    wide = wide or width
    return {"stem": conv(3, width), "inner": conv(wide, inner), "head": conv(inner, 2), **others}


def raw(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def scored() -> dict[str, Any]:
    return {"stem": conv(3, 6), "score": nn.Linear(6, 1), "mix": nn.Linear(6, 5),
            "head": nn.Linear(5, 2)}  # fmt: skip


CASES = (
    Case("points on a map", lambda: Net(_pillars, stem=conv(3, 6), inner=conv(6, 5),
         head=conv(5, 2)), "stem inner", 6 + 5),
    Case("messages along edges", lambda: Net(_messages, stem=conv(3, 6), head=conv(6, 2)),
         "stem", 6),
    Case("a channel that is named", lambda: Net(_one_of_the_channels, stem=conv(3, 6),
         score=nn.Linear(6, 6), head=conv(6, 2)), "", 0,
         stay={"stem": "picked by an index", "score": "an operation across channels"}),
    Case("the best output alone", lambda: Net(_one_hot, stem=conv(3, 6), head=conv(6, 2)),
         "stem", 6, stay={"head": "an operation across channels"}),
    Case("products of channels", lambda: Net(_products_of_channels, stem=conv(3, 6),
         head=conv(6, 2)), "stem", 6),
    Case("picked tokens", lambda: Net(_best_tokens, **scored()), "stem mix", 6 + 5),
    Case("picked tokens of literal width",
         lambda: Net(_best_tokens_of_literal_width, **scored()), "mix", 5,
         stay={"stem": "fixed"}),
    Case("maxout",
         lambda: Net(_maxout, stem=conv(3, 6), wide=conv(6, 8), head=conv(4, 2)),
         "stem wide", 6 + 4),
    Case("a temporal shift", lambda: Net(_shifted, **two(8)), "stem inner", 2 + 5,
         example=images().expand(4, 3, 8, 8)[None] * torch.arange(1, 5).view(1, 4, 1, 1, 1)),
    Case("frames", lambda: Net(_frames, **two()), "stem inner", 6 + 5,
         example=images().expand(4, 3, 8, 8)[None] * torch.arange(1, 5).view(1, 4, 1, 1, 1)),
    Case("repeated channels", lambda: Net(_repeated, **two(6, 12)), "stem inner", 6 + 5),
    Case("interleaved channels", lambda: Net(_interleaved, **two(6, 12)), "stem inner", 6 + 5),
    Case("every other channel", lambda: Net(_every_other, **two(6, 3)), "inner", 5,
         stay={"stem": "fixed in code"}),
    Case("the first channel", lambda: Net(_first_channel, **two()), "stem inner", 5 + 5,
         stay={"stem": "the only channel"}),
    Case("deviations", lambda: Net(_deviations, **two(), across=nn.Linear(2, 1)),
         "stem inner", 6 + 5),
    Case("distances", lambda: Net(_prototypes, stem=conv(3, 6), points=raw(4, 6)), "stem", 6),
    Case("distances by hand", lambda: Net(_prototypes_by_hand, stem=conv(3, 6), points=raw(4, 6)),
         "stem", 6),
    Case("cosines", lambda: Net(_cosine, stem=conv(3, 6), points=raw(4, 6)), "stem", 6),
    Case("correlations", lambda: Net(_correlation, stem=conv(3, 6), head=conv(3, 2)), "stem", 6),
    Case("a spatial transformer", lambda: Net(_sampled, **two(), move=nn.Linear(6, 6)),
         "stem inner", 6 + 5, stay={"move": "fixed size"}),
    Case("mixed positions",
         lambda: Net(_positions_mixed, stem=conv(3, 6), within=nn.Linear(64, 7),
                     across=nn.Linear(7, 64), inner=nn.Linear(6, 5), head=nn.Linear(5, 2)),
         "stem within inner", 6 + 7 + 5, stay={"across": ""}),
    Case("a running sum over positions", lambda: Net(_running_sum, **two()), "stem inner", 6 + 5),
    Case("a running sum over channels", lambda: Net(_sum_over_channels, **two()), "inner", 5,
         stay={"stem": "across channels"}),
    Case("tensors like others", lambda: Net(_fixed_noise, **two()), "stem inner", 6 + 5),
    Case("coordinates", lambda: Net(_coordinates, **two(6, 8)), "stem inner", 6 + 5),
    Case("a mean of everything", lambda: Net(_minibatch_deviation, **two(6, 7)), "stem inner",
         6 + 5),
    Case("modulated kernels",
         lambda: Net(_modulated, stem=conv(3, 6), style=nn.Linear(3, 6), kernel=raw(5, 6, 3, 3),
                     head=conv(5, 2)),
         "stem style kernel", 6 + 5),
    Case("mixed kernels",
         lambda: Net(_dynamic, stem=conv(3, 6), weigh=nn.Linear(6, 4), kernels=raw(4, 5, 6, 3, 3),
                     head=conv(5, 2)),
         "stem kernels weigh", 6 + 5 + 4),
    Case("involution",
         lambda: Net(_involution, stem=conv(3, 8), kernel=conv(8, 18, 1), head=conv(8, 2)),
         "stem", 4, stay={"kernel": "fixed size"}),
    Case("coordinate attention",
         lambda: Net(_coordinate_attention, stem=conv(3, 6), squeeze=conv(6, 4, 1),
                     rows=conv(4, 6, 1), columns=conv(4, 6, 1), head=conv(6, 2)),
         "stem squeeze rows columns", 6 + 4),
    Case("chunks that feed one another",
         lambda: Net(_res2, stem=conv(3, 9), first=conv(3, 3), second=conv(3, 3),
                     head=conv(9, 2)),
         "stem first second", 3 + 3),
    Case("halves and steps",
         lambda: Net(_csp, stem=conv(3, 8), head=conv(14, 2),
                     steps=nn.ModuleList([conv(4, 3), conv(3, 3)])),
         "stem steps.0 steps.1", 4 + 3 + 3),
    Case("pixels as channels", lambda: Net(_focus, **two(4, 16)), "stem inner", 4 + 5),
    Case("patches that are not square",
         lambda: Net(_wide_patches, stem=conv(3, 6), head=conv(6, 2)), "stem", 6),
    Case("parts of numbers as channels", lambda: Net(_parts_as_channels, **two(6, 12)),
         "stem inner", 6 + 5),
    Case("frequencies of channels",
         lambda: Net(_frequencies_of_channels, stem=conv(3, 6), inner=nn.Linear(6, 5),
                     head=nn.Linear(5, 2)),
         "inner", 5, stay={"stem": "across channels"}),
    Case("two group norms that disagree",
         lambda: Net(_normed_twice, stem=conv(3, 8), fine=nn.GroupNorm(4, 8),
                     coarse=nn.GroupNorm(2, 8), head=conv(8, 2)),
         "stem", 2),
    Case("a group norm across a seam",
         lambda: Net(_normed_together, left=conv(3, 9), right=conv(3, 3),
                     norm=nn.GroupNorm(6, 12), head=conv(12, 2)),
         "left right", 6),
    Case("rows of a table", placed, "stem", 6),
)  # fmt: skip
