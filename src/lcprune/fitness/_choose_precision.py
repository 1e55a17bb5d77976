"""The fastest precision, by a short measurement."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lcprune.errors import ModelError
from lcprune.fitness._alternate import FEW, Pace, relative_times
from lcprune.fitness._modes import eval_mode
from lcprune.fitness._precision import DTYPES, Precision

FIRST_BATCH = 64
BATCHES = (32, 64, 128, 250)
TOLERANCE = 0.1


def choose_precision(
    model: nn.Module,
    images: Tensor,
    *,
    seconds: float = 2.0,
    batches: Sequence[int] = BATCHES,
    tolerance: float = TOLERANCE,
) -> Precision:
    """Measure forward passes and return what runs most images a second.

    ``images`` are normalised float32 (N, C, H, W); a few hundred are enough. First number format
    and layout are compared at one batch size, then batch sizes, in alternating rounds for about
    ``seconds`` in all; the median of the ratios to the first candidate counts. A candidate that
    fails, yields values that are not finite, or is off float32 by more than ``tolerance``
    (relative, Euclidean norm over the outputs of a few images), or takes many times as long, is
    out. The model is left as it was.
    ``ModelError`` where float32 itself fails so.
    """
    if len(images) == 0:
        raise ModelError("expected at least one image to measure with")
    first = min(FIRST_BATCH, len(images))
    usable = _usable(model, images[:first], tolerance)
    winner = _fastest([(p, m, images[:first]) for p, m in usable], seconds / 2)
    prepared = next(m for p, m in usable if p == winner)
    sizes = sorted({min(size, len(images)) for size in batches})
    if len(sizes) == 1:
        return Precision(winner.dtype, winner.channels_last, sizes[0])
    choices = [Precision(winner.dtype, winner.channels_last, size) for size in sizes]
    return _fastest([(p, prepared, images[: max(sizes)]) for p in choices], seconds / 2)


def _usable(
    model: nn.Module, images: Tensor, tolerance: float
) -> list[tuple[Precision, nn.Module]]:
    usable: list[tuple[Precision, nn.Module]] = []
    reference: Tensor | None = None
    pace = Pace()
    few = images[:FEW]
    for dtype in DTYPES:
        for channels_last in (False, True):
            precision = Precision(dtype, channels_last, len(images))
            prepared = precision.apply(copy.deepcopy(model))
            found: list[Tensor] = []
            try:
                keeps_up = pace.keeps_up(partial(_outputs, prepared, precision.cast(few), found))
            except RuntimeError:
                if reference is None:
                    raise
                continue
            outputs = found[0]
            if reference is None:
                if not bool(torch.isfinite(outputs).all()):
                    raise ModelError("the model's outputs are not finite")
                reference = outputs
            error = (outputs - reference).norm() / reference.norm().clamp_min(1e-12)
            if keeps_up and bool(error <= tolerance):  # false for NaN
                usable.append((precision, prepared))
    return usable


def _outputs(model: nn.Module, images: Tensor, into: list[Tensor]) -> None:
    with eval_mode(model), torch.inference_mode():
        into.append(_flat(model(images)))


def _fastest(
    candidates: Sequence[tuple[Precision, nn.Module, Tensor]], seconds: float
) -> Precision:
    runs = [
        partial(_run, model, precision.cast(images), precision.batch)
        for precision, model, images in candidates
    ]
    times = relative_times(runs, seconds)
    return candidates[times.index(min(times))][0]


def _run(model: nn.Module, images: Tensor, batch: int) -> None:
    with eval_mode(model), torch.inference_mode():
        for part in torch.split(images, batch):
            model(part)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)


def _flat(outputs: object) -> Tensor:
    return torch.cat([tensor.float().flatten() for tensor in _tensors(outputs)])


def _tensors(outputs: object) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, dict):
        for value in outputs.values():
            yield from _tensors(value)
    elif isinstance(outputs, list | tuple):
        for value in outputs:
            yield from _tensors(value)
