"""The number format and layout to train in, by a short measurement."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcprune.fitness import FEW, Pace, relative_times
from lcprune.training._config import Dtype
from lcprune.training._generators import seeded_generators

GAIN = 1.3


@dataclass(frozen=True)
class TrainingPrecision:
    """``TrainingConfig``'s choices of the same names."""

    dtype: Dtype
    channels_last: bool


def choose_training_precision(
    model: nn.Module, inputs: Tensor, *, seconds: float = 4.0, gain: float = GAIN
) -> TrainingPrecision:
    """Measure forward and backward passes on one batch and return what is fastest.

    ``inputs``, float32 (N, …), is a batch on the model's device. bfloat16 must be ``gain`` times
    as fast as the better layout in float32, else it is not worth its rounding; what takes many
    times as long on a few samples is not measured further. The answer may differ from run to run:
    store it with what it decides. The model is left as it was.
    """
    choices = [
        TrainingPrecision(dtype, channels_last)
        for dtype in ("float32", "bfloat16")
        for channels_last in ((False, True) if inputs.dim() == 4 else (False,))
    ]
    with seeded_generators(0, inputs.device):
        measured: list[TrainingPrecision] = []
        runs: list[Callable[[], None]] = []
        pace = Pace()
        for choice in choices:
            try:
                keeps_up = pace.keeps_up(_pass(model, inputs[:FEW], choice))
            except RuntimeError:  # an operation without a bfloat16 kernel
                if choice.dtype == "float32":
                    raise
                continue
            if keeps_up:
                measured.append(choice)
                runs.append(_pass(model, inputs, choice))
        times = relative_times(runs, seconds)
    handicapped = [
        time * (gain if choice.dtype == "bfloat16" else 1.0)
        for choice, time in zip(measured, times, strict=True)
    ]
    return measured[handicapped.index(min(handicapped))]


def _pass(model: nn.Module, inputs: Tensor, choice: TrainingPrecision) -> Callable[[], None]:
    copied = copy.deepcopy(model).train()
    if choice.channels_last:
        copied.to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    half = choice.dtype == "bfloat16"

    def run() -> None:
        copied.zero_grad(set_to_none=True)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
            outputs: Tensor = copied(inputs)
        outputs.float().square().mean().backward()  # type: ignore[no-untyped-call]
        if inputs.device.type == "cuda":
            torch.cuda.synchronize(inputs.device)

    return run
