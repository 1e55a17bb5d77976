"""What the ranges of an int8 file come from: samples that are finite and of the example's kind."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lcprune._checks import instance, integer, is_iterable, refused
from lcprune.data import Data
from lcprune.engines._engine import input_tensors
from lcprune.errors import InputError
from lcprune.tracing import ExampleInput, Inputs, as_examples

IMAGES = 300
"""How many images a file is calibrated on where nobody says it."""


def calibration_images(data: Data, count: int = IMAGES, seed: int = 0) -> Tensor:
    """Training images to calibrate on, normalised, float32 (N, C, H, W): a choice by the seed.

    They are those that ``lcprune export --int8`` takes, and all where there are no more. Images
    of the test split are never among them.
    """
    instance("data", data, Data, "a Data")
    integer("count", count, 1)
    generator = torch.Generator().manual_seed(integer("seed", seed, 0))
    order = torch.randperm(len(data.train), generator=generator)
    chosen = data.train.subset(order[:count].sort().values)
    return torch.cat([data.normalise(pixels) for pixels, _ in chosen.batches(count)])


def calibration(batches: Iterable[ExampleInput], example: Inputs) -> list[Inputs]:
    """All samples of the batches, on the CPU, in batches as large as the example's.

    Where a batch is no multiple of that, the last part begins again with its first samples.
    ``InputError`` where there is none, or one holds NaN or infinity, or is not like the example.
    """
    if isinstance(batches, Tensor):
        batches = [batches]
    if not is_iterable(batches):
        raise refused("int8", batches, "batches of the model's inputs, such as [images]")
    found: list[Inputs] = []
    for number, batch in enumerate(batches):
        name = f"calibration batch {number}"
        for inputs in as_examples(batch, example.kwargs, name):
            parts = list(_parts(inputs.mapped(lambda x: x.detach().cpu()), example.batch))
            _check(name, parts, example)
            found += parts
    if not found:
        raise InputError("int8 holds no sample, expected one or more to calibrate on")
    return found


def _parts(inputs: Inputs, size: int) -> Iterable[Inputs]:
    of = inputs.batch
    if not size or not of:
        yield inputs
        return
    for begin in range(0, of, size):
        rows = torch.arange(begin, begin + size) % of
        yield inputs.mapped(
            lambda x, rows=rows: (  # type: ignore[misc]
                x.index_select(0, rows) if x.dim() and x.shape[0] == of else x.clone()
            )
        )


def _check(name: str, parts: list[Inputs], example: Inputs) -> None:
    wanted = _kinds(example)
    for part in parts:
        if _kinds(part) != wanted:
            raise InputError(
                f"{name} holds {_words(_kinds(part))} a call, expected {_words(wanted)} as the "
                "example has"
            )
        if not all(bool(x.isfinite().all()) for x in input_tensors(part)):
            raise InputError(f"{name} holds NaN or infinity, expected finite inputs")


def _kinds(inputs: Inputs) -> list[tuple[tuple[int, ...], torch.dtype]]:
    return [(tuple(x.shape), x.dtype) for x in input_tensors(inputs)]


def _words(kinds: list[tuple[tuple[int, ...], torch.dtype]]) -> str:
    told = [f"{'x'.join(map(str, s)) or 'a number'} {str(t)[6:]}" for s, t in kinds]
    return " and ".join(told) or "no tensor"
