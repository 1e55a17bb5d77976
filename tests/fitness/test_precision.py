"""Number format and layout, of a search and of training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lcprune.errors import InputError, ModelError
from lcprune.fitness import Precision, choose_precision, choose_training_precision
from lcprune.fitness._precision import FEW, keeps_pace, relative_times
from lcprune.models import build, state_sha256


def network() -> nn.Module:
    return build("digits_resnet", classes=10, input_shape=(1, 8, 8)).eval()


@pytest.mark.parametrize("channels_last", [False, True])
def test_bfloat16_spares_batch_norm(channels_last: bool) -> None:
    model = network()
    precision = Precision("bfloat16", channels_last, 4)
    assert precision.apply(model) is model
    for module in model.modules():
        expected = torch.float32 if isinstance(module, nn.BatchNorm2d) else torch.bfloat16
        for tensor in module.parameters(recurse=False):
            assert tensor.dtype == expected
        for tensor in module.buffers(recurse=False):
            assert tensor.dtype in (torch.float32, torch.int64)
    kernel = model.get_parameter("layer1.0.conv1.weight")
    assert kernel.is_contiguous(memory_format=torch.channels_last) == channels_last
    with torch.no_grad():
        assert model(precision.cast(torch.randn(2, 1, 8, 8))).dtype == torch.bfloat16


def test_float32_changes_the_layout_alone() -> None:
    model = network()
    before = state_sha256(model)
    Precision("float32", True, 4).apply(model)
    assert state_sha256(model) == before


def test_tied_parameters_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    Precision("bfloat16", False, 4).apply(model)
    assert model[1].weight is model[0].weight
    assert model[0].weight.dtype == torch.bfloat16


def test_cast_leaves_integers_and_other_ranks_alone() -> None:
    precision = Precision("bfloat16", True, 4)
    assert precision.cast(torch.arange(3)).dtype == torch.int64
    assert precision.cast(torch.zeros(2, 3)).dtype == torch.bfloat16
    assert precision.cast(torch.zeros(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("dtype", "batch"), [("float16", 4), ("", 4), ("float32", 0)])
def test_unknown_precisions_are_refused(dtype: str, batch: int) -> None:
    with pytest.raises(InputError, match=r"expected (one of float32, bfloat16|an integer)"):
        Precision(dtype, False, batch)


def choose(model: nn.Module, count: int = 16) -> Precision:
    return choose_precision(model, torch.randn(count, 1, 8, 8), seconds=0.0)


def test_the_model_is_left_as_it_was() -> None:
    model = network().train()
    before = state_sha256(model)
    precision = choose(model)
    assert state_sha256(model) == before
    assert all(module.training for module in model.modules())
    assert precision.batch <= 16


class Odd(nn.Module):
    """Goes wrong in bfloat16 in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.weight = nn.Parameter(torch.full((1, 1, 1, 1), 1.001))

    def forward(self, input: Tensor) -> Tensor:
        half = input.dtype == torch.bfloat16
        if self.way == "raises" and half:
            raise RuntimeError("not implemented for BFloat16")
        if self.way == "nan" and half:
            return input * float("nan")
        if self.way == "off":
            return (input * 0 + self.weight - 1).flatten(1)
        return input * self.weight


@pytest.mark.parametrize("way", ["raises", "nan", "off"])
def test_a_candidate_that_fails_or_deviates_is_out(way: str) -> None:
    assert choose(Odd(way)).dtype == "float32"


@pytest.mark.parametrize("slow", ["float32", "bfloat16"])
def test_the_faster_one_wins(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, input: Tensor) -> Tensor:
            contiguous = input.is_contiguous()
            cost = 2.0 if str(input.dtype) == f"torch.{slow}" else 1.0
            clock[0] += cost * (1.5 if contiguous else 1.0) * (1 + 8 / len(input))
            return input * self.weight

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    chosen = choose_precision(
        Slow(), torch.randn(16, 3, 8, 8), seconds=50.0, batches=(2, 4, 8, 16, 32)
    )
    assert chosen.dtype != slow
    assert chosen.channels_last
    # n images in batches of b cost n / b (1 + 8 / b), which falls with b.
    assert chosen.batch == 16


def test_what_is_hopelessly_slow_is_run_once_on_a_few_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    seen: list[tuple[torch.dtype, int]] = []

    class Emulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, input: Tensor) -> Tensor:
            seen.append((input.dtype, len(input)))
            clock[0] += len(input) * (10.0 if input.dtype == torch.bfloat16 else 1.0)
            return input * self.weight

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    chosen = choose_precision(Emulated(), torch.randn(64, 1, 8, 8), seconds=1000.0)
    assert chosen.dtype == "float32"
    assert [count for dtype, count in seen if dtype == torch.bfloat16] == [FEW, FEW]


@pytest.mark.parametrize(("seconds", "turns"), [(0.5, 1), (1.0, 2), (7.0, 3)])
def test_what_takes_longer_than_the_measurement_runs_once(
    seconds: float, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    ran: list[float] = []

    def taking(cost: float) -> Callable[[], None]:
        def run() -> None:
            ran.append(cost)
            clock[0] += cost

        return run

    assert relative_times([taking(1.0), taking(3.0)], seconds) == [1, 3]
    assert ran == [1.0, 3.0] * turns


@pytest.mark.parametrize(
    ("seconds", "best", "kept"),
    [(0.9, 0.01, True), (1.1, 0.01, False), (19.0, 4.0, True), (21.0, 4.0, False)],
)
def test_pace_forgives_what_takes_no_time(seconds: float, best: float, kept: bool) -> None:
    assert keeps_pace(seconds, best) == kept


def test_outputs_may_be_nested() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, input: Tensor) -> dict[str, list[Tensor]]:
            return {"out": [input * self.weight, torch.arange(3)]}

    assert choose(Nested()).batch <= 16


def test_outputs_that_are_not_finite_in_float32_are_an_error() -> None:
    with pytest.raises(ModelError, match="not finite"):
        choose_precision(nn.Conv2d(1, 1, 1), torch.full((2, 1, 4, 4), float("inf")), seconds=0)
    with pytest.raises(ModelError, match="at least one image"):
        choose_precision(nn.Conv2d(1, 1, 1), torch.zeros(0, 1, 4, 4))


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
