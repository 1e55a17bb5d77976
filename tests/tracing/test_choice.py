"""Choice by name: whose filters may go, by definition over the names of the modules."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lcprune.errors import InputError
from lcprune.graph import ChannelGraph
from lcprune.models import build
from lcprune.tracing import trace
from oracle import check

EXAMPLE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MODEL = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval()
WHOLE = trace(MODEL, EXAMPLE)
CONVOLUTIONS = {name for name, module in MODEL.named_modules() if isinstance(module, nn.Conv2d)}
PATTERNS = ["layer1*", "layer3", "layer2.0", "*.conv1", "*conv2", "conv1", "layer?.1.*", "linear"]


def covers(pattern: str, name: str) -> bool:
    """Whether a pattern matches a module's name or that of one of its ancestors."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))


def free_filters(graph: ChannelGraph) -> dict[str, np.ndarray]:
    """For every convolution which of its filters may go."""
    found = {}
    for name in CONVOLUTIONS:
        channels = graph.dimension(f"{name}.weight", 0).channels
        found[name] = (channels >= 0) & (channels < graph.prunable)
    return found


@settings(max_examples=12)
@given(
    st.lists(st.sampled_from(PATTERNS), max_size=2), st.lists(st.sampled_from(PATTERNS), max_size=2)
)
def test_a_group_goes_only_if_every_filter_in_it_may(only: list[str], skip: list[str]) -> None:
    def may(name: str) -> bool:
        chosen = not only or any(covers(pattern, name) for pattern in only)
        return chosen and not any(covers(pattern, name) for pattern in skip)

    goes = np.ones(WHOLE.prunable, dtype=bool)
    for name in CONVOLUTIONS:
        if not may(name):
            goes[WHOLE.dimension(f"{name}.weight", 0).channels] = False
    free = free_filters(trace(MODEL, EXAMPLE, only=only, skip=skip))
    for name in CONVOLUTIONS:
        assert free[name].tolist() == goes[WHOLE.dimension(f"{name}.weight", 0).channels].tolist()


def test_the_reason_names_pattern_and_module() -> None:
    graph = trace(MODEL, EXAMPLE, skip=["layer1*"])
    reasons = {entry.tensor: entry.reason for entry in graph.untouched}
    assert reasons["layer1.1.conv1.weight"] == "left out by skip 'layer1*' (layer1.1.conv1)"
    # conv1 is free itself, but what it is added to is not.
    assert reasons["conv1.weight"] == "left out by skip 'layer1*' (layer1.0.conv2)"
    assert reasons["linear.weight"] == "an output of the model"
    graph = trace(MODEL, EXAMPLE, only=["layer2", "layer3"])
    reasons = {entry.tensor: entry.reason for entry in graph.untouched}
    assert reasons["layer1.0.conv1.weight"] == (
        "left out by only 'layer2', 'layer3' (layer1.0.conv1)"
    )


def test_input_channels_of_a_skipped_module_follow_the_modules_before_it() -> None:
    graph = trace(MODEL, EXAMPLE, skip=["*.conv2"])
    for block in ("layer1.0", "layer3.2"):
        inner = graph.dimension(f"{block}.conv2.weight", 1).channels
        assert (inner < graph.prunable).all()
        assert inner.tolist() == graph.dimension(f"{block}.conv1.weight", 0).channels.tolist()
    result = check(MODEL, EXAMPLE, 0, graph)
    assert result.error <= 1e-9
    assert result.effect > 1e-3


class PreActivated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.bn(x).relu())


def plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), PreActivated(), nn.Flatten(), nn.Linear(5 * 28 * 28, 4), nn.Linear(4, 2)
    )


@pytest.mark.parametrize(
    ("choice", "stay"),
    [
        ({}, set()),
        # A block is its filters; the norm before them follows the convolution before it.
        ({"skip": ["1"]}, {"1.conv"}),
        ({"skip": ["1.bn"]}, {"0"}),
        ({"skip": ["1.*"]}, {"0", "1.conv"}),
        ({"skip_types": ["PreActivated"]}, {"1.conv"}),
        ({"skip_types": ["BatchNorm2d"]}, {"0"}),
        ({"skip_types": ["_BatchNorm"]}, {"0"}),
        ({"skip_types": ["torch.nn.modules.linear.Linear"]}, {"3"}),
        ({"skip_types": ["Conv2d", "Linear"]}, {"0", "1.conv", "3"}),
        ({"skip": ["*"]}, {"0", "1.conv", "3"}),
        ({"only": ["1"]}, {"0", "3"}),
        ({"only": ["[01]*"], "skip": ["0"]}, {"0", "3"}),
    ],
)
def test_what_stays(choice: dict[str, list[str]], stay: set[str]) -> None:
    graph = trace(plain(), EXAMPLE, **choice)
    assert {f.tensor.removesuffix(".weight") for f in graph.untouched} == {*stay, "4"}


def test_a_module_with_two_names_is_chosen_by_either() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.left = nn.Conv2d(4, 4, 1)
            self.right = self.left
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.right(self.left(self.stem(x)).relu()))

    for name in ("left", "right"):
        assert trace(Twice(), EXAMPLE, skip=[name]).prunable == 0
        assert trace(Twice(), EXAMPLE, only=[name, "stem"]).prunable == 4


def test_a_model_that_is_one_layer_and_parameters_of_the_model_itself() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 3, 1, 1))
            self.head = nn.Conv2d(5, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(nn.functional.conv2d(x, self.weight))

    assert trace(Bare(), EXAMPLE).prunable == 5
    assert trace(Bare(), EXAMPLE, skip=["head"]).prunable == 5
    (entry, _) = trace(Bare(), EXAMPLE, only=["head"]).untouched
    assert entry.reason == "left out by only 'head' (the model)"
    assert trace(nn.Conv2d(3, 2, 1), EXAMPLE, skip=["*"]).prunable == 0


def test_a_choice_that_leaves_all_is_the_plain_graph() -> None:
    graph = trace(MODEL, EXAMPLE, only=["*"])
    assert graph.prunable == WHOLE.prunable
    assert [f.name for f in graph.families] == [f.name for f in WHOLE.families]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"skip": ["layr1"]}, r"skip 'layr1' matches no module.*layer1"),
        ({"skip": ["layer1", "Layer2"]}, r"skip 'Layer2' matches no module.*layer2"),
        ({"skip": [""]}, r"skip '' matches no module"),
        ({"skip": ["layer1.0.conv1.weight"]}, r"did you mean layer1\.0\.conv1"),
        ({"skip": ["relu"]}, r"skip 'relu' matches only modules without channels.*relu"),
        ({"only": ["zzz*"]}, r"only 'zzz\*' matches no module"),
        ({"only": ["bn1"]}, r"only 'bn1' matches no module with filters"),
        ({"only": ["conv1", "*.bn2"]}, r"only '\*\.bn2' matches no module with filters"),
        ({"skip_types": ["linear"]}, r"skip_types 'linear' matches.*did you mean Linear"),
        ({"skip_types": ["torch.nn.modules.conv.Conv3d"]}, r"torch\.nn\.modules\.conv\.Conv2d"),
        ({"skip_types": ["Module"]}, r"skip_types 'Module' matches no module"),
        ({"skip_types": ["ReLU"]}, r"skip_types 'ReLU' matches only modules without channels"),
        ({"skip": "layer1"}, r"skip is 'layer1', expected a sequence"),
        ({"only": [1]}, r"only is a list of 1, expected a sequence"),
        ({"skip_types": 3}, r"skip_types is 3, expected a sequence"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(choice: dict[str, object], message: str) -> None:
    model = nn.Sequential()
    for name, module in MODEL.named_children():
        model.add_module(name, module)
        if name == "bn1":
            model.add_module("relu", nn.ReLU())
        if name == "layer3":
            model.add_module("pool", nn.AdaptiveAvgPool2d(1))
            model.add_module("flat", nn.Flatten())
    with pytest.raises(InputError, match=message) as caught:
        trace(model, EXAMPLE, **choice)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
