"""Whether a written file computes what the network does: opened in a process that knows no more."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lcprune._text import one_line
from lcprune.engines._capture import batched, noisy, quiet
from lcprune.engines._engine import Case, Engine, engine_named, input_tensors, output_tensors
from lcprune.errors import ModelError, VerificationError
from lcprune.fitness import folded
from lcprune.tracing import Inputs, forward

TOLERANCE = 1e-4
"""Largest difference in float32, relative to the largest value of an output."""
BATCHES = (1, 7, 128)
"""Sizes that a file with a dynamic batch is tried at."""
TRIED_IN_INT8 = 64
"""Calibration samples, or batches of them, that a file in int8 is tried on."""
_TIE = 1e-6
_DRAWS = 2

_CHILD = (
    "import sys; engine, path, given, found, *sys.path = sys.argv[1:]; "
    "from lcprune.engines._parity import run_file; run_file(engine, path, given, found)"
)


def check_file(
    model: nn.Module, engine: Engine, path: Path, example: Inputs, *, dynamic_batch: bool
) -> float:
    """The largest relative difference between a file on its engine and ``model`` in PyTorch.

    Tried are the example and two like it with noise, or one of each of ``BATCHES`` where the batch
    is dynamic. ``VerificationError`` where the file can't be opened or run in a fresh process, or
    differs by more than ``TOLERANCE``, or in the class of a sample.
    """
    cases = _cases(example, dynamic_batch=dynamic_batch)
    wanted = [expected(model, case) for case in cases]
    found = _in_fresh_process(engine, path, [input_tensors(case) for case in cases])
    return max(
        difference(ours, theirs, engine.name) for ours, theirs in zip(wanted, found, strict=True)
    )


def check_int8_file(
    model: nn.Module,
    engine: Engine,
    path: Path,
    samples: Sequence[Inputs],
    *,
    dynamic_batch: bool,
) -> tuple[float, float | None]:
    """How far a file in int8 is from ``model`` in PyTorch on what it was calibrated on.

    The first is the root mean square of the difference, relative to that of PyTorch's outputs: 1
    is as far away as zeros are. The second is the share of samples of the same class, none where
    no output is a table of logits. Where the batch is dynamic ``BATCHES`` are tried as well.
    ``VerificationError`` where the file can't be opened or run in a fresh process, gives other
    shapes or values that are not finite, or the first is not below 1.
    """
    cases = list(samples[:TRIED_IN_INT8])
    if dynamic_batch:
        cases += [batched(samples[0], size) for size in BATCHES]
    wanted = [expected(model, case) for case in cases]
    found = _in_fresh_process(engine, path, [input_tensors(case) for case in cases])
    for ours, theirs in zip(wanted, found, strict=True):
        _check_shapes(ours, theirs, engine.name)
    error, same = 0.0, []
    for output in range(len(wanted[0])):
        ours, theirs = ([case[output] for case in cases] for cases in (wanted, found))
        if not ours[0].is_floating_point():
            continue  # such as a class: of whatever it was made the error is known
        if not all(bool(x.isfinite().all()) for x in theirs):
            raise VerificationError(f"{engine.name} gives values in int8 that are not finite")
        error = max(error, root_mean_square(ours, theirs))
        if ours[0].dim() == 2 and ours[0].shape[1] > 1:
            same += [x.argmax(1) == y.argmax(1) for x, y in zip(ours, theirs, strict=True)]
    if not error < 1:
        raise VerificationError(
            f"{engine.name} in int8 is as far from PyTorch as zeros are ({error:.2g}), expected "
            "less than 1"
        )
    return error, float(torch.cat(same).double().mean()) if same else None


def root_mean_square(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """That of the differences over that of what is wanted; every pair counts the same."""
    of = sum(float(x.double().square().mean()) for x in wanted if x.numel())
    off = sum(
        float((x.double() - y.double()).square().mean())
        for x, y in zip(wanted, found, strict=True)
        if x.numel()
    )
    return math.sqrt(off / of) if of else math.sqrt(off)


def _cases(example: Inputs, *, dynamic_batch: bool) -> list[Inputs]:
    if dynamic_batch:
        return [batched(example, size, seed=size) for size in BATCHES]
    cases = [example.mapped(torch.clone)]
    for seed in range(_DRAWS):
        generator = torch.Generator().manual_seed(seed)
        cases.append(example.mapped(lambda x, g=generator: noisy(x, g)))  # type: ignore[misc]
    return cases


def expected(model: nn.Module, inputs: Inputs) -> Case:
    """What ``model`` itself gives; ``ModelError`` for no tensors or values that are not finite."""
    outputs = output_tensors(forward(model, inputs))
    if not outputs:
        raise ModelError("the model gives no tensor on the example input, expected one or more")
    if not all(bool(x.isfinite().all()) for x in outputs):
        raise ModelError("the model gives values on the example input that are not finite")
    return outputs


def _in_fresh_process(engine: Engine, path: Path, cases: Sequence[Case]) -> list[Case]:
    given, found = path.with_name("given.safetensors"), path.with_name("found.safetensors")
    _write(cases, given)
    # Isolated: nothing of the environment or of the working directory is in its way.
    ended = subprocess.run(
        [sys.executable, "-I", "-c", _CHILD, engine.name, path, given, found, *sys.path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"},
        check=False,
    )
    if ended.returncode:
        lines = ended.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        code = f" (exit code {ended.returncode})" if ended.returncode != 1 else ""
        raise VerificationError(
            f"{engine.name} can't run what was exported{code}: {one_line(lines[-1])}"
        )
    results = _read(found)
    for scratch in (given, found):
        scratch.unlink()
    return results


def run_file(name: str, path: str, given: str, found: str) -> None:
    """In the fresh process: open the file, run all that is given, and write what comes out."""
    engine = engine_named(name)
    try:
        opened = engine.open(Path(path))
        with quiet():
            results = [opened(*case) for case in _read(Path(given))]
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {one_line(error)}")
    _write(results, Path(found))


def _write(cases: Sequence[Case], path: Path) -> None:
    tensors = {f"{n}.{k}": x for n, case in enumerate(cases) for k, x in enumerate(case)}
    save_file({name: x.contiguous().clone() for name, x in tensors.items()}, path)


def _read(path: Path) -> list[Case]:
    cases: dict[int, dict[int, Tensor]] = {}
    for name, tensor in load_file(path).items():
        n, k = map(int, name.split("."))
        cases.setdefault(n, {})[k] = tensor
    return [[cases[n][k] for k in sorted(cases[n])] for n in sorted(cases)]


def difference(wanted: Case, found: Case, name: str) -> float:
    """The largest relative difference of outputs; ``VerificationError`` where it is too large."""
    _check_shapes(wanted, found, name)
    largest = 0.0
    for ours, theirs in zip(wanted, found, strict=True):
        error = relative(ours, theirs)
        if not error <= TOLERANCE:
            raise VerificationError(
                f"{name} differs from PyTorch by {error:.2g}, expected at most {TOLERANCE:g}"
            )
        if not _same_classes(ours, theirs):
            raise VerificationError(f"{name} gives a sample another class than PyTorch")
        largest = max(largest, error)
    return largest


def _check_shapes(wanted: Case, found: Case, name: str) -> None:
    shapes = [[tuple(x.shape) for x in case] for case in (wanted, found)]
    if shapes[0] != shapes[1]:
        raise VerificationError(
            f"{name} gives outputs of other shapes than PyTorch: {shapes[1]} for {shapes[0]}"
        )


def relative(wanted: Tensor, found: Tensor) -> float:
    """The largest difference relative to the largest wanted value; of integers 0 or 1."""
    if not wanted.numel():
        return 0.0
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return float(not torch.equal(wanted, found.to(wanted.dtype)))
    precise = torch.complex128 if wanted.is_complex() else torch.float64
    wanted, found = wanted.to(precise), found.to(precise)
    scale = float(wanted.abs().max())
    return float((wanted - found).abs().max()) / (scale or 1.0)


def _same_classes(wanted: Tensor, found: Tensor) -> bool:
    """Whether all rows of logits have their largest at one place, but for ties of PyTorch's."""
    if wanted.dim() != 2 or wanted.shape[1] < 2 or not wanted.is_floating_point():
        return True
    best = wanted.max(1).values
    chosen = wanted.gather(1, found.argmax(1, keepdim=True)).squeeze(1)
    return bool((best - chosen <= _TIE * wanted.abs().amax(1)).all())


def with_folded_norms(model: nn.Module, example: Inputs) -> nn.Module:
    """``model`` with its batch norms folded, or itself where that computes something else.

    So it is with a norm that divides by next to nothing, and with a forward that asks whether an
    argument was given.
    """
    with suppress(Exception), quiet():
        found = folded(model)
        difference(expected(model, example), expected(found, example), "folded")
        return found
    return model
