"""The number format to train in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lcprune.fitness import FEW
from lcprune.models import build, state_sha256
from lcprune.training import choose_training_precision


class Timed(nn.Module):
    """Costs what a table says, on a clock of its own."""

    def __init__(self, clock: list[float], gain: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 2, 1)
        self.clock = [clock]
        self.gain = gain

    def __deepcopy__(self, _: object) -> Timed:
        return Timed(self.clock[0], self.gain)

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.convolution(input)
        cost = 1.0 if output.dtype == torch.bfloat16 else self.gain
        self.clock[0][0] += cost * (1.0 if input.is_contiguous() else 0.9)
        return output


@pytest.mark.parametrize(
    ("gain", "dtype"), [(0.5, "float32"), (1.25, "float32"), (1.35, "bfloat16"), (4, "bfloat16")]
)
def test_bfloat16_must_be_clearly_faster(
    gain: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    chosen = choose_training_precision(Timed(clock, gain), torch.randn(2, 2, 3, 3), seconds=20)
    assert chosen.dtype == dtype
    assert chosen.channels_last


def test_what_is_hopelessly_slow_is_not_trained_on_a_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, batches = [0.0], []

    class Emulated(nn.Conv2d):
        def __deepcopy__(self, _: object) -> Emulated:
            return Emulated(2, 2, 1)

        def forward(self, input: Tensor) -> Tensor:
            output = super().forward(input)
            half = output.dtype == torch.bfloat16
            clock[0] += len(input) * (10.0 if half else 1.0)
            if half:
                batches.append(len(input))
            return output

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    inputs = torch.randn(32, 2, 3, 3)
    assert choose_training_precision(Emulated(2, 2, 1), inputs, seconds=99).dtype == "float32"
    assert batches == [FEW, FEW]


def test_model_and_generator_are_left_as_they_were() -> None:
    model = build("digits_resnet", classes=10, input_shape=(1, 8, 8)).eval()
    batch = torch.randn(8, 1, 8, 8)
    before, state = state_sha256(model), torch.get_rng_state()
    choose_training_precision(model, batch, seconds=0)
    assert state_sha256(model) == before
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_that_fails_in_bfloat16_trains_in_float32() -> None:
    class Strict(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            output = super().forward(input)
            if output.dtype == torch.bfloat16:
                raise RuntimeError("not implemented for BFloat16")
            return output

    chosen = choose_training_precision(Strict(3, 3), torch.randn(2, 3), seconds=0, gain=0.0)
    assert chosen.dtype == "float32"
    assert not chosen.channels_last
