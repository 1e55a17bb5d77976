"""When two sets of outputs are the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engines.networks import Keywords, classifier, images, keywords
from lcprune.engines._parity import TOLERANCE, difference, relative, with_folded_norms
from lcprune.errors import VerificationError
from lcprune.tracing import Inputs

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [4.0, 0.0, -8.0]])


def test_the_error_is_relative_to_the_largest_value() -> None:
    found = LOGITS.clone()
    found[1, 1] += 4e-4
    assert relative(LOGITS, found) == pytest.approx(4e-4 / 8, rel=1e-3)
    assert difference([LOGITS], [found], "it") == relative(LOGITS, found)
    found[1, 1] += 8e-4
    with pytest.raises(VerificationError, match=r"it differs from PyTorch by 0.00015"):
        difference([LOGITS], [found], "it")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_differs(value: float) -> None:
    found = LOGITS.clone()
    found[0, 0] = value
    with pytest.raises(VerificationError, match="differs"):
        difference([LOGITS], [found], "it")


def test_other_shapes_and_numbers_of_outputs_differ() -> None:
    for found in ([LOGITS[:1]], [LOGITS, LOGITS], [], [LOGITS.T]):
        with pytest.raises(VerificationError, match="other shapes"):
            difference([LOGITS], found, "it")


def test_a_sample_of_another_class_differs_however_little() -> None:
    close = torch.tensor([[1.0, 1.0 + 2e-5]])
    turned = torch.tensor([[1.0 + 3e-5, 1.0]])
    assert relative(close, turned) < TOLERANCE
    with pytest.raises(VerificationError, match="another class"):
        difference([close], [turned], "it")
    tie = torch.tensor([[1.0, 1.0 + 1e-7]])
    assert difference([tie], [tie.flip(1)], "it") < 1e-6  # of rounding
    maps = close.reshape(1, 2, 1, 1)
    assert difference([maps], [turned.reshape(1, 2, 1, 1)], "it") < TOLERANCE


def test_integers_and_complex_numbers() -> None:
    numbers = torch.tensor([1, 2, 3])
    assert difference([numbers], [numbers.int()], "it") == 0
    with pytest.raises(VerificationError):
        difference([numbers], [torch.tensor([1, 2, 4])], "it")
    waves = torch.tensor([1j, 2 + 0j])
    assert relative(waves, waves + 1e-3j) == pytest.approx(5e-4, rel=1e-3)
    assert relative(torch.zeros(0), torch.zeros(0)) == 0
    assert relative(torch.zeros(2), torch.full((2,), 1e-3)) == pytest.approx(1e-3)


def norms(model: nn.Module) -> int:
    graph = getattr(model, "graph", None)
    targets = {node.target for node in graph.nodes} if graph is not None else None
    return sum(
        isinstance(module, nn.BatchNorm2d) and (targets is None or name in targets)
        for name, module in model.named_modules()
    )


def test_norms_are_folded() -> None:
    model = classifier()
    folded = with_folded_norms(model, Inputs(images(2, 1, 9, 9)))
    assert (norms(model), norms(folded)) == (2, 0)


class Gated(nn.Module):
    """Computes something else where a gate is given, which torch.fx takes for granted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor, gate: float | None = None) -> Tensor:
        x = self.norm(self.conv(x))
        return x if gate is None else x + 1


def test_what_folding_would_change_stays(capfd: pytest.CaptureFixture[str]) -> None:
    gated = Gated().eval()
    assert with_folded_norms(gated, Inputs(images(2, 1, 3, 3))) is gated
    assert norms(with_folded_norms(gated, Inputs(images(2, 1, 3, 3), 1.0))) == 0
    model = keywords()
    assert isinstance(model, Keywords)
    example = Inputs(images(2, 2, 6, 6), scale=torch.ones(2), power=1)
    assert with_folded_norms(model, example) is model
    assert capfd.readouterr() == ("", "")
