"""What goes in and what comes out: several tensors, containers, sequences."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracing.rule_case import Case, Net, chain, conv, images, values

Found = namedtuple("Found", ["scores", "features"])


def _two_inputs(net: Any, left: Tensor, right: Tensor) -> Tensor:
    return net.head(torch.cat([net.left(left), net.right(right)], 1))


def _siamese(net: Any, left: Tensor, right: Tensor) -> Tensor:
    return net.head((net.stem(left) - net.stem(right)).abs())


def _dictionary(net: Any, inputs: dict[str, Tensor]) -> dict[str, Any]:
    features = F.relu(net.left(inputs["left"])) * net.right(inputs["right"])
    return {"head": net.head(features), "others": OrderedDict(second=[net.head_of(features)])}


def _list(net: Any, inputs: list[Tensor]) -> list[Tensor]:
    features = [net.stem(image) for image in inputs]
    total = features[0] + F.interpolate(features[1], size=features[0].shape[2:])
    return [net.head(total), net.head(features[1])]


def _named(net: Any, x: Tensor) -> Found:
    features = net.stem(x)
    return Found(net.head(net.inner(features)), features.mean(1))


def _features_too(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    features = net.stem(x)
    return net.head(net.inner(features)), features


def _levels(net: Any, x: Tensor) -> dict[str, Tensor]:
    """A backbone with a lateral convolution for each level."""
    fine = F.relu(net.stem(x))
    coarse = F.relu(net.inner(F.max_pool2d(fine, 2)))
    return {"fine": net.head_fine(fine), "coarse": net.head_coarse(coarse)}


def _masked(net: Any, x: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    x = net.stem(x) * scale
    if mask is not None:
        x = x.masked_fill(mask, 0.0)
    return net.head(x)


def _words(net: Any, words: Tensor) -> Tensor:
    x = net.table(words).transpose(1, 2)
    branches = [F.relu(branch(x)).amax(2) for branch in (net.two, net.three)]
    return net.head(torch.cat(branches, 1))


def _bag(net: Any, words: Tensor) -> Tensor:
    return net.head(F.relu(net.mix(net.table(words))))


def _conditioned(net: Any, x: Tensor, time: Tensor) -> Tensor:
    """A diffusion network's block: scale and shift of every channel from a number."""
    waves = time[:, None] * torch.exp(-torch.arange(4, dtype=time.dtype))
    scale, shift = net.condition(torch.cat([waves.sin(), waves.cos()], 1)).chunk(2, 1)
    x = F.silu(net.norm(net.stem(x)) * (1 + scale[:, :, None, None]) + shift[:, :, None, None])
    return net.head(net.inner(x))


class Sequence(nn.Module):
    """A recurrent layer over the columns of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 6)
        self.reads = nn.GRU(6, 5, batch_first=True)
        self.mix = nn.Linear(5, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).mean(2).transpose(1, 2)
        return self.head(F.relu(self.mix(self.reads(x)[0][:, -1])))


WORDS = torch.randint(0, 10, (1, 7), generator=torch.Generator().manual_seed(0))
MASK = images(1) > 0.5


def pair(second: int = 6) -> dict[str, Any]:
    return {"left": conv(3, 6), "right": conv(2, second)}


CASES = (
    Case("two inputs", lambda: Net(_two_inputs, **pair(5), head=conv(11, 2)), "left right", 6 + 5,
         example=(images(), images(2))),
    Case("one layer for two inputs", lambda: Net(_siamese, stem=conv(3, 6), head=conv(6, 2)),
         "stem", 6, example=(images(), images().flip(3))),
    Case("dictionaries", lambda: Net(_dictionary, **pair(), head=conv(6, 2), head_of=conv(6, 3)),
         "left right", 6, example=({"left": images(), "right": images(2)},)),
    Case("lists", lambda: Net(_list, stem=conv(3, 6), head=conv(6, 2)), "stem", 6,
         example=([images(), images(size=4)],)),
    Case("a named tuple",
         lambda: Net(_named, stem=conv(3, 6), inner=conv(6, 5), head=conv(5, 2)),
         "stem inner", 6 + 5),
    Case("features among the outputs",
         lambda: Net(_features_too, stem=conv(3, 6), inner=conv(6, 5), head=conv(5, 2)),
         "inner", 5, stay={"stem": "output 1 of the model"}),
    Case("levels",
         lambda: Net(_levels, stem=conv(3, 6), inner=conv(6, 5), head_fine=conv(6, 2),
                     head_coarse=conv(5, 2)),
         "stem inner", 6 + 5),
    Case("a mask and a number", lambda: Net(_masked, stem=conv(3, 6), head=conv(6, 2)), "stem", 6,
         example=(images(), MASK, 0.5)),
    Case("nothing for a mask", lambda: Net(_masked, stem=conv(3, 6), head=conv(6, 2)), "stem", 6,
         example=(images(), None, 2.0)),
    Case("words",
         lambda: Net(_words, table=nn.Embedding(10, 6), two=nn.Conv1d(6, 4, 2),
                     three=nn.Conv1d(6, 5, 3), head=nn.Linear(9, 2)),
         "table two three", 6 + 4 + 5, example=WORDS),
    Case("a bag of words",
         lambda: Net(_bag, table=nn.EmbeddingBag(10, 6), mix=nn.Linear(6, 5), head=nn.Linear(5, 2)),
         "table mix", 6 + 5, example=WORDS),
    Case("a condition",
         lambda: Net(_conditioned, stem=conv(3, 8), norm=nn.GroupNorm(2, 8), inner=conv(8, 5),
                     condition=nn.Linear(8, 16), head=conv(5, 2)),
         "stem condition inner", 4 + 5, example=(images(), torch.tensor([3.0]))),
    Case("a recurrent layer", Sequence, "stem mix", 6 + 4,
         stay={"reads.weight_ih_l0": "numbers of its own",
               "reads.weight_hh_l0": "numbers of its own"}),
    Case("a bilinear layer",
         lambda: Net(lambda net, x: net.head(torch.tanh(net.pairs(net.a(x).mean((2, 3)),
                                                                 net.b(x).mean((2, 3))))),
                     a=conv(3, 4), b=conv(3, 5), pairs=nn.Bilinear(4, 5, 6),
                     head=nn.Linear(6, 2)),
         "a b pairs", 4 + 5 + 6),
    Case("a volume of cost",
         lambda: chain(nn.Conv3d(3, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(),
                       nn.AvgPool3d(2), nn.Upsample(scale_factor=2, mode="trilinear"),
                       nn.ConvTranspose3d(6, 4, 3, padding=1), head=nn.Conv3d(4, 1, 1)),
         "a f", 6 + 4, example=values(1, 3, 4, 4, 4)),
)  # fmt: skip
