"""The number format and memory layout that a model runs in, and the fastest one by measurement."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lcprune._checks import (
    choice,
    instance,
    integer,
    is_iterable,
    module,
    number,
    refused,
    told_in_one_line,
)
from lcprune.errors import ModelError
from lcprune.fitness._running import eval_mode, seeded

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

FEW = 8
"""Inputs that are enough to see that a precision is hopeless or wrong."""

FIRST_BATCH = 64
BATCHES = (32, 64, 128, 250)
TOLERANCE = 0.1
GAIN = 1.3


@dataclass(frozen=True)
class Precision:
    """How a network is run: ``dtype`` (float32 or bfloat16), layout, inputs a batch.

    A search converts each candidate by ``apply``, BatchNorm aside, whose parameters and
    statistics stay in float32. In training weights stay in float32, and ``dtype`` is what
    convolutions and matrix products run in. ``InputError`` for another format.
    """

    dtype: str = "float32"
    channels_last: bool = False
    batch: int = 250

    def __post_init__(self) -> None:
        choice("precision", self.dtype, DTYPES)
        instance("channels_last", self.channels_last, bool, "True or False")
        integer("batch", self.batch, 1)

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as PyTorch has it."""
        return DTYPES[self.dtype]

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert ``model``, in place as ``nn.Module.to`` does, and return it."""
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    continue
                for parameter in module.parameters(recurse=False):
                    parameter.data = self.cast(parameter.data)
                for name, buffer in module.named_buffers(recurse=False):
                    module._buffers[name] = self.cast(buffer)
        return model

    def cast(self, tensor: Tensor) -> Tensor:
        """Convert a tensor, such as an input (N, …); with four dimensions it has a layout."""
        if tensor.is_floating_point():
            tensor = tensor.to(self.torch_dtype)
        if tensor.dim() == 4:
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            tensor = tensor.contiguous(memory_format=layout)
        return tensor


Run = Callable[[], object]
Prepare = Callable[[Precision, Tensor], Run]


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
    _check(model, "images", images, seconds)
    if len(images) == 0:
        raise ModelError("expected at least one image to measure with")
    number("tolerance", tolerance, 0)
    if not is_iterable(batches) or not list(batches):
        raise refused("batches", batches, "batch sizes")
    for size in batches:
        integer("a batch size", size, 1)
    reference: list[Tensor] = []

    def right(outputs: object) -> bool:
        found = torch.cat([tensor.float().flatten() for tensor in _tensors(outputs)])
        if not reference:
            if not bool(torch.isfinite(found).all()):
                raise ModelError("the model's outputs are not finite")
            reference.append(found)
        error = (found - reference[0]).norm() / reference[0].norm().clamp_min(1e-12)
        return bool(error <= tolerance)  # false for NaN

    prepare = partial(_evaluation, model)
    first = images[:FIRST_BATCH]
    winner = _fastest(_usable(first, prepare, right), first, prepare, seconds / 2)
    sizes = sorted({min(size, len(images)) for size in batches})
    choices = [replace(winner, batch=size) for size in sizes]
    if len(choices) == 1:
        return choices[0]
    return _fastest(choices, images[: max(sizes)], prepare, seconds / 2)


def choose_training_precision(
    model: nn.Module, inputs: Tensor, *, seconds: float = 4.0, gain: float = GAIN
) -> Precision:
    """Measure forward and backward passes on one batch and return what is fastest.

    ``inputs``, float32 (N, …), is a batch on the model's device. bfloat16 must be ``gain`` times
    as fast as the better layout in float32, else it is not worth its rounding; what takes many
    times as long on a few samples is not measured further. The answer may differ from run to run:
    store it with what it decides. The model is left as it was.
    """
    _check(model, "inputs", inputs, seconds)
    number("gain", gain, 0)
    prepare = partial(_training, model)
    with seeded(0):
        choices = _usable(inputs, prepare, lambda _: True)
        return _fastest(choices, inputs, prepare, seconds, gain)


def _check(model: object, name: str, inputs: object, seconds: float) -> None:
    module("model", model)
    found = instance(name, inputs, Tensor, "a batch of inputs, float32 (N, …)")
    if not found.dim() or found.is_meta or found.layout != torch.strided:
        raise refused(name, inputs, "a batch of dense inputs, float32 (N, …)")
    number("seconds", seconds, 0, 3600)


def _usable(inputs: Tensor, prepare: Prepare, right: Callable[[object], bool]) -> list[Precision]:
    """The formats and layouts that run on a few inputs, keep pace and are ``right``."""
    usable: list[Precision] = []
    best = math.inf
    for dtype in DTYPES:
        for channels_last in (False, True) if inputs.dim() == 4 else (False,):
            choice = Precision(dtype, channels_last, len(inputs))
            run = prepare(choice, inputs[:FEW])
            try:
                outputs, seconds = timed(run)
            except RuntimeError as error:  # an operation without a bfloat16 kernel
                if dtype == "float32":
                    with told_in_one_line("the model can't be run to measure it"):
                        raise error
                continue
            best = min(best, seconds)
            if keeps_pace(seconds, best) and right(outputs):
                usable.append(choice)
    return usable


def _fastest(
    choices: Sequence[Precision],
    inputs: Tensor,
    prepare: Prepare,
    seconds: float,
    handicap: float = 1.0,
) -> Precision:
    """The choice of the least time on ``inputs``; that of bfloat16 counts ``handicap`` times."""
    times = relative_times([prepare(choice, inputs) for choice in choices], seconds)
    weighed = [
        time * (handicap if choice.dtype == "bfloat16" else 1.0)
        for time, choice in zip(times, choices, strict=True)
    ]
    return choices[weighed.index(min(weighed))]


def _evaluation(model: nn.Module, precision: Precision, images: Tensor) -> Run:
    """Forward passes of ``model``'s copy over ``images`` in batches; the last outputs."""
    prepared = precision.apply(copy.deepcopy(model))
    parts = torch.split(precision.cast(images), precision.batch)

    def run() -> object:
        with eval_mode(prepared), torch.inference_mode():
            outputs = [prepared(part) for part in parts][-1]
        _wait(images.device)
        return outputs

    return run


def _training(model: nn.Module, precision: Precision, inputs: Tensor) -> Run:
    """A forward and a backward pass of ``model``'s copy, as a training step runs them."""
    prepared = copy.deepcopy(model).train()
    if precision.channels_last:
        prepared.to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    half = precision.dtype == "bfloat16"

    def run() -> None:
        prepared.zero_grad(set_to_none=True)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
            outputs: Tensor = prepared(inputs)
        outputs.float().square().mean().backward()  # type: ignore[no-untyped-call]
        _wait(inputs.device)

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


def relative_times(runs: Sequence[Run], seconds: float) -> list[float]:
    """Time each of ``runs`` relative to the first: the median of the ratios within a round.

    Each runs once to warm up, then all take turns for about ``seconds``, at least once each, so
    that what else the machine does falls on all of them. Where even the fastest takes longer than
    ``seconds``, what warming up adds is little beside it, and the first time counts.
    """
    first = [timed(run)[1] for run in runs]
    if min(first) > seconds:
        return [own / first[0] for own in first]
    end = time.perf_counter() + seconds
    rounds: list[list[float]] = []
    while not rounds or time.perf_counter() < end:
        rounds.append([timed(run)[1] for run in runs])
    return [
        statistics.median(times[index] / times[0] for times in rounds) for index in range(len(runs))
    ]


def keeps_pace(seconds: float, best: float) -> bool:
    """Whether a run took at most a second, or five times as long as the ``best`` so far.

    A processor without instructions for a number format can take a hundred times as long in it;
    to find that out precisely would take minutes.
    """
    return seconds <= max(1.0, 5.0 * best)


def timed(run: Run) -> tuple[object, float]:
    """What ``run`` returns, and the seconds that it took."""
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start
