"""Networks over sequences and volumes: the rules know no number of dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lcprune.cost import CostModel
from lcprune.tracing import trace
from oracle import check, randomise

CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Hourglass(nn.Module):
    """Down, up again, and a concatenated skip; depthwise, grouped and transposed on the way."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        convolution, transposed, norm = CONVOLUTION[dims], TRANSPOSED[dims], NORM[dims]
        self.stem = nn.Sequential(convolution(2, 6, 3, padding=1), norm(6), nn.PReLU(6))
        self.down = nn.Sequential(
            POOL[dims](2),
            convolution(6, 12, 3, padding=1, groups=6),
            nn.GroupNorm(3, 12),
            nn.SiLU(),
            convolution(12, 8, 1, groups=2),
        )
        self.up = transposed(8, 5, 2, stride=2)
        self.wide = transposed(8, 8, 2, stride=2, groups=8)
        self.resample = nn.Upsample(scale_factor=2, mode=MODE[dims], align_corners=False)
        self.out = convolution(6 + 5 + 8 + 8, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        z = self.down(y)
        merged = torch.cat([y, self.up(z), self.wide(z), self.resample(z)], 1)
        return self.head(torch.relu(self.out(merged)).flatten(2).mean(2))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_hourglass_is_exact_in_any_number_of_dimensions(dims: int) -> None:
    model = randomise(Hourglass(dims), dims)
    example = torch.randn(2, 2, *[8] * dims, generator=torch.Generator().manual_seed(0))
    graph = trace(model, example)
    pruned = {family.name for family in graph.families}
    assert {"stem.0", "up", "out"} <= pruned
    assert {u.tensor for u in graph.untouched if u.count == u.size} == {"head.weight"}
    for seed in range(4):
        seen = check(model, example, seed, graph)
        assert seen.error <= 1e-9
        assert seen.effect > 1e-3


def test_the_structure_does_not_depend_on_the_number_of_dimensions() -> None:
    graphs = [trace(Hourglass(dims), torch.zeros(1, 2, *[8] * dims)) for dims in (1, 2, 3)]
    assert len({graph.prunable for graph in graphs}) == 1
    assert len({tuple(family.dimensions for family in graph.families) for graph in graphs}) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["r3d_18"])
def test_networks_for_video_are_exact(name: str) -> None:
    models = pytest.importorskip("torchvision").models
    model = randomise(models.get_model(name, weights=None), 0)
    clip = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    graph = trace(model, clip)
    assert [u.tensor for u in graph.untouched] == ["fc.weight"]
    seen = check(model, clip, 0, graph)
    assert seen.error <= 1e-9
    assert seen.effect > 1e-3
    assert CostModel(graph).evaluate()["params"] == sum(p.numel() for p in model.parameters())
