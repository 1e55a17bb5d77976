"""Networks that are odd in what they do with their channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from strange import Gate, convolution


class NeighbourGate(nn.Module):
    """Moves the channels to positions for a 1-D convolution from channel to channel (ECA)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.trunk = convolution(8, 6)
        self.across = nn.Conv1d(1, 1, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.trunk(self.stem(x))
        means = y.mean((2, 3), keepdim=True).squeeze(-1).transpose(1, 2)
        gate = torch.sigmoid(self.across(means)).transpose(1, 2).unsqueeze(-1)
        return self.head((y * gate).mean((2, 3)))


class ShuffledDense(nn.Module):
    """Dense concatenation of a gated skip, shuffled channel by channel, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 4)
        self.grow = nn.ModuleList([convolution(4, 4), convolution(8, 4)])
        self.gates = nn.ModuleList([Gate(4, 4), Gate(4, 8)])
        self.mix = nn.Conv2d(12, 8, 3, padding=1, groups=4)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for grow, gate in zip(self.grow, self.gates, strict=True):
            new = grow(x)
            x = functional.channel_shuffle(torch.cat([x * gate(new), new], 1), 4)
        return self.head(torch.relu(self.mix(x)).mean((2, 3)))


class SelectiveKernels(nn.Module):
    """Attention over branches: a softmax along a dimension that stack makes (SKNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 6)
        self.branches = nn.ModuleList([convolution(6, 8), convolution(6, 8), convolution(6, 8)])
        self.squeeze = nn.Linear(8, 4)
        self.selects = nn.ModuleList([nn.Linear(4, 8) for _ in range(3)])
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        stacked = torch.stack([branch(x) for branch in self.branches], 1)
        squeezed = torch.relu(self.squeeze(stacked.sum(1).mean((2, 3))))
        scores = torch.stack([select(squeezed) for select in self.selects], 1)
        return self.head((stacked * scores.softmax(1)[..., None, None]).sum(1).mean((2, 3)))


class EinsumMix(nn.Module):
    """Mixes channels by einsum with a raw parameter, then pools bilinearly."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 6)
        self.trunk = convolution(6, 8)
        self.mixture = nn.Parameter(torch.ones(8, 6))
        self.second = convolution(6, 4)
        self.head = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(torch.einsum("nchw,cd->ndhw", self.trunk(self.stem(x)), self.mixture))
        pooled = torch.einsum("nchw,ndhw->ncd", y, self.second(y)) / y[0, 0].numel()
        return self.head(pooled.flatten(1))


class ChannelSoftmax(nn.Module):
    """Gates its channels by a softmax over them, beside ones that no gate touches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.trunk = convolution(8, 6)
        self.scores = nn.Linear(6, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.trunk(self.stem(x))
        gate = torch.softmax(self.scores(y.mean((2, 3))), 1)
        return self.head((y * gate[:, :, None, None]).mean((2, 3)))


class CountsItsChannels(nn.Module):
    """Divides by the number of its channels: a mean over them, made by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.trunk = convolution(8, 6)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.trunk(self.stem(x))
        return self.head((y.sum(1) / y.shape[1]).flatten(1))


class ScaledByItsWidth(nn.Module):
    """Divides by the root of a number of channels, as attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.trunk = convolution(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head((self.trunk(y) / y.shape[1] ** 0.5).mean((2, 3)))


class PixelsThereAndBack(nn.Module):
    """Shuffles channels to pixels, and the pixels back to channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.trunk = convolution(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(functional.pixel_shuffle(self.stem(x), 2))
        return self.head(self.trunk(functional.pixel_unshuffle(y, 2)).mean((2, 3)))


class PlainAttention(nn.Module):
    """Positions attend to one another by their channels as they are, with the default scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.trunk = convolution(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.trunk(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(functional.scaled_dot_product_attention(tokens, tokens, tokens).mean(1))


class ModuleAttention(nn.Module):
    """PyTorch's own attention module over the positions of a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 6)
        self.trunk = convolution(6, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.trunk(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(self.attend(tokens, tokens, tokens, need_weights=False)[0].mean(1))


class RootMeanSquares(nn.Module):
    """PyTorch's own RMSNorm over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 6)
        self.trunk = convolution(6, 8)
        self.norm = nn.RMSNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.trunk(self.stem(x)).movedim(1, -1)).mean((1, 2)))
