"""Control flow that depends on data: the path taken is followed, and the graph says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lcprune.tracing import trace
from oracle import check, randomise

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """One of two layers, by what ``decide`` says of the input."""

    def __init__(self, decide: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.yes = nn.Conv2d(6, 5, 1)
        self.no = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(6, 2)
        self.register_buffer("limit", torch.tensor(2.0))
        self.decide = decide

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        taken = self.yes if self.decide(x) else self.no
        return self.head(y.mean((2, 3))) * torch.tanh(taken(y)).mean()


def copied_element(x: Tensor) -> bool:
    whole = torch.zeros(4)
    whole[1:3] = x[0, 0, 0, :2]
    return float(whole.sum()) > -100


DECIDING = {
    "item": lambda x: x.sum().item() > -1e9,
    "bool": lambda x: bool(x.abs().max() < 100),
    "index": lambda x: [True, True][int(x.argmax()) % 2],
    "equal": lambda x: torch.equal(x, x.clone()),
    "nonzero": lambda x: len(x.abs().nonzero()) > 0,
    "list": lambda x: max(x.flatten().tolist()) < 100,
    "numpy": lambda x: x.numpy().max() < 100,
    "written": copied_element,
}

NOT_FOLLOWED = [DECIDING[name] for name in ("index", "nonzero", "list", "numpy")]
"""The other ways are not known, or lie in shapes and values outside of PyTorch."""


@pytest.mark.parametrize("decide", DECIDING.values(), ids=DECIDING)
def test_control_flow_by_data_follows_the_path_taken_and_says_so(
    decide: Callable[[Tensor], bool],
) -> None:
    model = randomise(nn.Sequential(nn.Identity(), Branches(decide)), 0)
    graph = trace(model, IMAGE)
    assert [note for note in graph.notes if "depends on data" in note] == [
        "the control flow of 1 depends on data; followed along the path of the example input"
    ]
    followed = {("1.yes.weight", 1), ("1.no.weight", 1)} <= {d.key for d in graph.dimensions}
    assert followed == ("1.no is not reached by the forward pass" not in graph.notes)
    assert followed == (decide not in NOT_FOLLOWED)
    assert followed == (graph.dimension("1.yes.weight", 0).channels.max() < graph.prunable)
    assert check(model, IMAGE, 0, graph).error <= 1e-9


CONSTANT = {
    "shape": lambda x: x.shape[-1] > 2,
    "literal": lambda x: float(torch.tensor(3.0)) > 2,
    "computed": lambda x: int(torch.linspace(0, 8, 3)[1].round()) == 4,
    "size of a view": lambda x: x.flatten(1).shape[1] > 3,
}


@pytest.mark.parametrize("decide", CONSTANT.values(), ids=CONSTANT)
def test_control_flow_by_shapes_and_constants_needs_no_note(
    decide: Callable[[Tensor], bool],
) -> None:
    model = Branches(decide)
    assert not [note for note in trace(model, IMAGE).notes if "depends on data" in note]


def test_control_flow_by_the_state_of_the_model_needs_no_note() -> None:
    class Limits(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if self.limit.sqrt().item() > 1 else x

    model = Limits(lambda x: True)
    assert not [note for note in trace(model, IMAGE).notes if "depends on data" in note]


def test_control_flow_by_tensors_that_modules_hold_needs_no_note_and_keeps_nothing() -> None:
    """As the strides of a detector's head, which are neither parameter nor buffer."""

    class Held(Branches):
        def __init__(self) -> None:
            super().__init__(lambda x: True)
            self.strides, self.more = torch.tensor([1.0, 2.0]), {"one": torch.ones(())}

        def forward(self, x: Tensor) -> Tensor:
            grown = self.more["one"].item() == 1 and bool(self.strides[1] > 1)
            return super().forward(x) if grown else x

    graph = trace(Held(), IMAGE)
    assert not [note for note in graph.notes if "depends on data" in note]
    assert {u.tensor for u in graph.untouched} == {"head.weight", "no.weight"}
    assert {"stem.weight", "yes.weight"} <= {d.tensor for d in graph.dimensions}
