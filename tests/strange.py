"""Networks that nobody tuned for: small, and each odd in a way of its own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
    )


class Gate(nn.Module):
    """A gate for each of ``outputs`` channels from the means of ``inputs`` others."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, 4, 1), nn.SiLU(), nn.Conv2d(4, outputs, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.layers(x.mean((2, 3), keepdim=True))
        return gate


class CrossGates(nn.Module):
    """Two streams of different widths; each is gated by what the other one sees."""

    def __init__(self) -> None:
        super().__init__()
        self.left = convolution(3, 8)
        self.right = convolution(3, 6)
        self.left_by_right = Gate(6, 8)
        self.right_by_left = Gate(8, 6)
        self.deeper_left = convolution(8, 8)
        self.deeper_right = convolution(6, 8)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x.flip(-1))
        left, right = left * self.left_by_right(right), right * self.right_by_left(left)
        left, right = self.deeper_left(left), self.deeper_right(right)
        left = left * torch.sigmoid(right.mean((2, 3), keepdim=True))
        return self.head(torch.cat([left, right], 1).mean((2, 3)))


class UnevenSlices(nn.Module):
    """Slices its own channels in unequal parts at places that only its code knows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 11)
        self.small = convolution(3, 4)
        self.large = convolution(7, 6)
        self.mix = convolution(4 + 6 + 1, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        parts = [self.small(x[:, :3]), self.large(x[:, 3:10]), x[:, 10:]]
        return self.head(self.mix(torch.cat(parts, 1)).amax((2, 3)))


class SharedConvolution(nn.Module):
    """One convolution over two branches whose inputs come from different layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = convolution(3, 6)
        self.coarse = nn.Sequential(nn.AvgPool2d(2), convolution(3, 6))
        self.shared = nn.Conv2d(6, 8, 3, padding=1)
        self.fine_head = nn.Linear(8, 5)
        self.coarse_head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.tanh(self.shared(self.fine(x)))
        coarse = functional.gelu(self.shared(self.coarse(x)))
        return self.fine_head(fine.mean((2, 3))) * self.coarse_head(coarse.mean((2, 3)))


class NestedOutput(nn.Module):
    """Answers with dictionaries in tuples in dictionaries; one entry is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.trunk = convolution(8, 10)
        self.boxes = nn.Conv2d(10, 4, 1)
        self.masks = nn.ConvTranspose2d(10, 2, 2, stride=2)
        self.scores = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> dict[str, object]:
        y = self.trunk(self.stem(x))
        return {
            "dense": ({"boxes": self.boxes(y), "stride": 1}, [self.masks(y)]),
            "scores": {"logits": {"raw": self.scores(y.mean((2, 3)))}},
        }


class DetachedAuxiliary(nn.Module):
    """A second head on detached features, in every mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.trunk = convolution(8, 8)
        self.auxiliary = nn.Sequential(convolution(8, 6), nn.Flatten(), nn.Linear(6 * 64, 5))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.stem(x)
        return self.head(self.trunk(y).mean((2, 3))), self.auxiliary(y.detach())


class GeneratedWeights(nn.Module):
    """The kernels of one convolution are what another layer makes of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.after = convolution(6, 8)
        self.kernels = nn.Linear(8, 6 * 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        kernels = self.kernels(y.mean((0, 2, 3))).view(6, y.shape[1], 1, 1)
        return self.head(self.after(functional.conv2d(y, kernels)).mean((2, 3)))


class GeneratedWeightsOfFixedSize(GeneratedWeights):
    """The same, with all sizes as numbers in the code."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        kernels = self.kernels(y.mean((0, 2, 3))).view(6, 8, 1, 1)
        return self.head(self.after(functional.conv2d(y, kernels)).mean((2, 3)))


class WeighedExperts(nn.Module):
    """Mixes whole kernels by the input before it convolves with the mixture (CondConv)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.router = nn.Linear(8, 3)
        self.experts = nn.Parameter(torch.ones(3, 6, 8, 3, 3))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        weights = torch.sigmoid(self.router(y.mean((0, 2, 3))))
        kernel = (weights[:, None, None, None, None] * self.experts).sum(0)
        return self.head(torch.relu(functional.conv2d(y, kernel, padding=1)).mean((2, 3)))


class WritesThroughViews(nn.Module):
    """Fills a buffer of its own piece by piece, through views and in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 6)
        self.even = convolution(6, 4)
        self.odd = convolution(6, 4)
        self.trunk = convolution(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y[:, :, ::2].mul_(0.5)
        whole = y.new_zeros(y.shape[0], 8, *y.shape[2:])
        whole[:, 0::2] = self.even(y)
        whole[:, 1::2] = self.odd(y)
        first = whole[:, :4]
        first.add_(whole[:, 4:])
        return self.head(self.trunk(whole).mean((2, 3)))


class TwoResolutions(nn.Module):
    """A block called at two resolutions, its batch norm shared with a third place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 6, 1)
        self.outer = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def block(self, x: Tensor) -> Tensor:
        return self.norm(self.outer(torch.tanh(self.inner(x))))

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.relu(self.norm(self.stem(x)))
        coarse = self.block(functional.max_pool2d(fine, 2))
        fine = self.block(fine) + functional.interpolate(coarse, size=fine.shape[-2:])
        return self.head(torch.cat([fine.mean((2, 3)), coarse.amax((2, 3))], 1))


class UpdatesItsBuffer(nn.Module):
    """Keeps a moving average of its channels in a buffer, in eval mode too, and uses it."""

    centre: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.register_buffer("centre", torch.zeros(8))
        self.trunk = convolution(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        self.centre.lerp_(y.mean((0, 2, 3)), 0.1)
        self.centre = self.centre * 0.9
        return self.head(self.trunk(y - self.centre[:, None, None]).mean((2, 3)))


class NormalisesInPlace(nn.Module):
    """Writes into the input that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(x.mean()).mul_(2)
        return self.head(self.stem(x).mean((2, 3)))


class LeavesPyTorch(nn.Module):
    """Has NumPy compute between two of its convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.trunk = convolution(8, 6)
        self.after = convolution(6, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.trunk(self.stem(x))
        y = torch.from_numpy(np.abs(y.detach().cpu().numpy()))
        return self.head(self.after(y).mean((2, 3)))


class Reparametrised(nn.Module):
    """Adds the kernels of two layers up and convolves once, with neither module called (RepVGG)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 8)
        self.wide = nn.Conv2d(8, 6, 3, padding=1)
        self.narrow = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.wide.weight + functional.pad(self.narrow.weight, (1, 1, 1, 1))
        y = functional.conv2d(self.stem(x), kernel, self.wide.bias + self.narrow.bias, padding=1)
        return self.head(torch.relu(y).mean((2, 3)))
