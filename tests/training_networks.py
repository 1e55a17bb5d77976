"""Networks that compute something else in training: what only training joins, draws, or returns."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def block(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class Plain(nn.Module):
    """Two blocks and a head; what training does between them is ``between``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = block(3, 8), block(8, 10), nn.Linear(10, 4)

    def between(self, x: Tensor) -> Tensor:
        return x

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(self.between(x) if self.training else x)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.features(x).mean((2, 3)))


class Drops(Plain):
    """Every kind of dropout that PyTorch has."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.drop = getattr(nn, kind)(0.4)

    def between(self, x: Tensor) -> Tensor:
        return self.drop(x)


class DropsPaths(Plain):
    """A residual branch that is dropped for whole samples (stochastic depth)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = block(8, 8)

    def between(self, x: Tensor) -> Tensor:
        kept = x.new_empty((len(x), 1, 1, 1)).bernoulli_(0.5)
        return x + self.branch(x) * kept / 0.5


class SkipsBlocks(DropsPaths):
    """The same, decided by Python's own generator."""

    def between(self, x: Tensor) -> Tensor:
        return x + self.branch(x) * random.random()


class AddsNoise(Plain):
    """Noise of the shape of its input, of several distributions."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def between(self, x: Tensor) -> Tensor:
        if self.kind == "gumbel":
            return x - 0.1 * torch.empty_like(x).exponential_().log()
        if self.kind == "uniform":
            return x * (0.5 + torch.rand_like(x))
        if self.kind == "own generator":
            generator = torch.Generator().manual_seed(int(torch.randint(9, (1,))))
            return x + torch.randn(x.shape, generator=generator).to(x)
        return x + torch.randn_like(x)


class DropsAreas(Plain):
    """Areas are dropped, and what is left is scaled by their share (DropBlock)."""

    def between(self, x: Tensor) -> Tensor:
        kept = 1 - torch.empty_like(x).bernoulli_(0.3)
        return x * kept * (kept.numel() / kept.sum())


class RandomSlopes(Plain):
    """A randomised leaky rectifier."""

    def between(self, x: Tensor) -> Tensor:
        return F.rrelu(x - 0.5, training=True)


class MixesUp(Plain):
    """Mixup of features, by one share and one order of the images."""

    def between(self, x: Tensor) -> Tensor:
        share = torch.distributions.Beta(2.0, 2.0).sample().to(x)
        return share * x + (1 - share) * x[torch.randperm(len(x))]


class AuxiliaryHead(Plain):
    """A second head, returned in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Any:
        if not self.training:
            return super().forward(x)
        early = self.first(x)
        return {
            "out": self.head(self.second(early).mean((2, 3))),
            "auxiliary": self.auxiliary(early),
        }


class DeepSupervision(Plain):
    """Every stage has a head of its own, a list in training."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Conv2d(8, 5, 1), nn.Conv2d(10, 5, 1)])

    def forward(self, x: Tensor) -> Any:
        early = self.first(x)
        late = self.second(early)
        if not self.training:
            return self.heads[1](late)
        return [head(stage) for head, stage in zip(self.heads, (early, late), strict=True)]


class LossesInside(Plain):
    """Wants targets in training, and returns losses."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        logits = super().forward(x)
        if not self.training:
            return logits
        if targets is None:
            raise ValueError("targets are needed in training")
        return {"loss": F.cross_entropy(logits, targets), "size": logits.square().mean()}


class MixedInTraining(nn.Module):
    """Two branches that are summed in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = block(3, 8), block(3, 8), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        if self.training:
            share = torch.rand(x.shape[0], 1, 1, 1).to(x)
            a = a * share + b * (1 - share)
        return self.head(torch.cat([a, b], 1))


class DistilsItself(nn.Module):
    """The same, where the branches meet in a loss beside the output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = block(3, 8), block(3, 8), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Any:
        a, b = self.a(x), self.b(x)
        out = self.head(torch.cat([a, b], 1))
        return (out, F.mse_loss(a, b)) if self.training else out


def contrast(a: Tensor, b: Tensor) -> Tensor:
    a, b = (F.normalize(x.mean((2, 3)), dim=1) for x in (a, b))
    return F.cross_entropy(a @ b.t() / 0.1, torch.arange(len(a)))


LOSSES = {
    "cosine": lambda a, b: F.cosine_similarity(a.flatten(1), b.flatten(1)),
    "largest": lambda a, b: torch.stack([a, b]).amax(0).mean(),
    "choice": lambda a, b: torch.where(torch.rand(len(a), 1, 1, 1) < 0.5, a, b).square().mean(),
    "lerp": lambda a, b: torch.lerp(a, b, torch.rand(1).to(a)).square().mean((1, 2, 3)),
    "contrast": contrast,
}
"""Ways in which two branches of a network meet in a loss."""


class MeetsInLoss(DistilsItself):
    """The same, where they meet in one of ``LOSSES``."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Any:
        a, b = self.a(x), self.b(x)
        out = self.head(torch.cat([a, b], 1))
        return {"out": out, "loss": LOSSES[self.how](a, b)} if self.training else out


class SwapsInTraining(nn.Module):
    """The same, where training reads one branch with the other's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = block(3, 8), block(3, 8), nn.Conv2d(8, 4, 1)
        self.other = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Any:
        a, b = self.a(x), self.b(x)
        if self.training and random.random() >= 0:
            a, b = b, a
        return self.head(a) + self.other(b)


class FailsInTraining(Plain):
    """What training does can't be done."""

    def between(self, x: Tensor) -> Tensor:
        raise NotImplementedError("training needs the other package")


class WantsItsSizeInTraining(Plain):
    """What training does can be done with all channels only."""

    def between(self, x: Tensor) -> Tensor:
        if x.shape[1] != 8:
            raise RuntimeError(f"expected 8 channels, got {x.shape[1]}")
        return x


class Scale(torch.autograd.Function):
    """Its backward pass knows the number of channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * torch.full((1, 8, 1, 1), 2.0).to(gradient)


class WantsItsSizeBackward(Plain):
    def between(self, x: Tensor) -> Tensor:
        return Scale.apply(x)


class Root(torch.autograd.Function):
    """Its gradient is not finite where there are fewer channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape[1]
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient / 0 if ctx.size < 8 else gradient * 2


class LosesGradients(Plain):
    def between(self, x: Tensor) -> Tensor:
        return Root.apply(x)


class Counts(Plain):
    """Its training depends on how often it ran, and on what BatchNorm has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.ones(()))

    def between(self, x: Tensor) -> Tensor:
        self.runs += 1
        mean = self.get_submodule("first.1").running_mean
        return x * self.runs + mean[:, None, None]
