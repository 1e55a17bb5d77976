"""Networks that hide from any tracer how their code depends on numbers of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def hidden(size: int) -> int:
    """The same number, made anew: whatever followed the old one loses it here."""
    return int(str(size))


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.SiLU())


class Honest(nn.Module):
    """Four convolutions and a linear layer; what follows overrides ``twist``."""

    def __init__(self, joined: int = 16) -> None:
        super().__init__()
        self.stem = convolution(3, 12)
        self.odd = convolution(12, 16)
        self.other = convolution(12, 16)
        self.after = convolution(joined, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.after(self.twist(self.odd(x), self.other(x))).mean((2, 3)))

    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        return torch.cat([odd, other], 1)


class Honest32(Honest):
    def __init__(self) -> None:
        super().__init__(32)


class WantsItsSize(Honest32):
    """Raises, in several lines, unless a number of channels is what it was."""

    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        if hidden(odd.shape[1]) != 16:
            raise RuntimeError("expected 16 channels\nand nothing else " + "x" * 300)
        return super().twist(odd, other)


class LooksUpItsSize(Honest32):
    """Has a scale for one number of channels only, and a key of many characters."""

    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        scale = {"channels " + "0" * 300 + "16": 0.5}["channels " + str(odd.shape[1]).zfill(302)]
        return super().twist(scale * odd, other)


class ScalesByItsSize(Honest32):
    """Takes a mean over channels by hand: other sizes are computed otherwise, none raises."""

    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        return super().twist(odd / float(str(odd.shape[1])), other)


class BranchesByItsSize(Honest32):
    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        return super().twist(odd if hidden(odd.shape[1]) == 16 else 2 * odd, other)


class WantsMultiples(Honest32):
    """Only whole blocks of four can go."""

    factor = 4

    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        assert hidden(odd.shape[1]) % self.factor == 0
        return super().twist(odd, other)


class WantsEvenSizes(WantsMultiples):
    factor = 2


class WantsEqualSizes(Honest32):
    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        if hidden(odd.shape[1]) != hidden(other.shape[1]):
            raise ValueError("two streams of different widths")
        return super().twist(odd, other)


class WantsOneOfTwoSizes(Honest32):
    """Either of two sizes may change, not both, and not even in step."""

    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        if hidden(odd.shape[1]) != 16 and hidden(other.shape[1]) != 16:
            raise ValueError("both have changed")
        return super().twist(odd, other)


class WantsAllItsSizes(Honest32):
    """Nothing can go at all."""

    def forward(self, x: Tensor) -> Tensor:
        sizes = [hidden(m.weight.shape[0]) for m in self.modules() if isinstance(m, nn.Conv2d)]
        if sizes != [12, 16, 16, 10]:
            raise RuntimeError("sizes have changed")
        return super().forward(x)


class Forty(nn.Module):
    """A chain of forty convolutions, of which one asks for its size."""

    def __init__(self, culprit: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 1) for i in range(40))
        self.head = nn.Conv2d(4, 2, 1)
        self.culprit = culprit

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = torch.tanh(layer(x))
            if number == self.culprit and hidden(x.shape[1]) != 4:
                raise RuntimeError("expected 4 channels")
        return self.head(x)
