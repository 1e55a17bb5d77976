"""A network as a file for an engine, checked in a fresh process before it is there."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lcprune._checks import choice, instance
from lcprune._checks import path as checked_path
from lcprune._files import PARTIAL, make_directory, replacing, sync
from lcprune.engines import FORMATS
from lcprune.engines._calibration import calibration
from lcprune.engines._engine import engine_named, input_tensors
from lcprune.engines._parity import check_file, check_int8_file
from lcprune.errors import InputError, ModelError, RunError
from lcprune.tracing import ExampleInput, Inputs, as_examples, bake

_LIKELY_FULL = 2**20
"""Bytes that must be free where an exporter failed for another reason than the disk."""


@dataclass(frozen=True)
class Exported:
    """A file that was written: ``error`` is its largest relative difference from PyTorch.

    In int8 it is the root mean square of the differences on calibration samples, relative to that
    of PyTorch's outputs, and ``agreement`` is the share of them that get the same class (none in
    float32, and where no output is a table of logits). ``bytes`` are those of all its ``files``;
    ``seconds`` what writing and checking took.
    """

    path: Path
    format: str
    engine: str
    error: float
    files: tuple[Path, ...]
    bytes: int
    seconds: float
    agreement: float | None = None


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    format: str = "onnx",
    example_input: ExampleInput | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    dynamic_batch: bool = False,
    int8: Iterable[ExampleInput] | None = None,
) -> Exported:
    """Write a network as a file for another program, and check that it computes the same there.

    ``format`` is ``pt2`` (torch.export), ``onnx``, ``openvino`` (``.xml`` and ``.bin``) or
    ``executorch`` (``.pte``); ``path`` ends as its files do. ``example_input`` and
    ``example_kwargs`` are what ``trace`` takes, of several examples the first counts; with
    ``dynamic_batch`` the file takes any number of samples, else as many as the example has. The
    model is written in eval mode, its parametrised weights as plain ones and its batch norms
    folded, from a copy on the CPU.

    The file is opened in a fresh process, run by the format's engine on one thread, and compared
    with PyTorch: on the example and two more, or at batch 1, 7 and 128. Only then it takes its
    name, and it replaces an earlier one whole. ``VerificationError`` where an output differs by
    more than 1e-4 of its largest value, or a sample gets another class; ``ModelError`` with the
    operator where the exporter can't take the model; ``InputError`` where the engine is not
    installed or the file can't be written. Then nothing is.

    ``int8`` are batches of a few hundred training samples, each what ``example_input`` may be:
    from them come the ranges of activations, and the file computes in 8 bits (not pt2). It is
    compared with PyTorch on the first of them, and refused where it is as far away as zeros are:
    what it costs in accuracy only a test split tells. ``InputError`` where there is none, or one
    holds NaN or infinity or is not like the example.
    """
    began = time.perf_counter()
    instance("the model", model, nn.Module, "a torch.nn.Module", ModelError)
    engine = engine_named(FORMATS[choice("format", format, FORMATS)], int8=int8 is not None)
    instance("dynamic_batch", dynamic_batch, bool, "true or false")
    target = checked_path("path", path)
    if not target.name.endswith(engine.suffix) or target.name == engine.suffix:
        raise InputError(
            f"path is {target.name!r}, expected the name of a file that ends with {engine.suffix}"
        )
    if target.is_dir():
        raise RunError(f"can't write {target}: it is a directory")
    example = _on_cpu(as_examples(example_input, example_kwargs)[0])
    samples = None if int8 is None else calibration(int8, example)
    plain = bake(model).cpu().eval().requires_grad_(False)
    make_directory(target.parent)
    with _scratch(target.parent) as folder:
        written = folder / target.name
        cases = None if samples is None else [input_tensors(sample) for sample in samples]
        engine.write(plain, example, written, dynamic_batch=dynamic_batch, int8=cases)
        agreement: float | None = None
        if samples is None:
            error = check_file(plain, engine, written, example, dynamic_batch=dynamic_batch)
        else:
            error, agreement = check_int8_file(
                plain, engine, written, samples, dynamic_batch=dynamic_batch
            )
        # The file that names the others comes last.
        names = sorted((file.name for file in folder.iterdir()), key=lambda n: n == target.name)
        _publish(folder, target, names)
    files = tuple(target.with_name(name) for name in names)
    return Exported(
        path=target,
        format=format,
        engine=engine.name,
        error=error,
        files=files,
        bytes=sum(file.stat().st_size for file in files),
        seconds=time.perf_counter() - began,
        agreement=agreement,
    )


def _on_cpu(example: Inputs) -> Inputs:
    with torch.no_grad():
        return example.mapped(lambda x: x.detach().cpu().clone())


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A folder beside the target, gone at the end; ``RunError`` where the disk is full."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=parent))
    except OSError as error:
        raise RunError(f"can't write {parent}: {error.strerror or error}") from error
    try:
        yield folder
    except OSError as error:
        raise RunError(f"can't write to {parent}: {error.strerror or error}") from error
    except Exception as error:
        full = _no_space(folder)
        if full is None or isinstance(error, RunError):
            raise
        # Libraries that write files themselves say anything then, or nothing.
        raise RunError(f"can't write to {parent}: {full}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _no_space(folder: Path) -> str | None:
    """Why a small file can't be written, or none where it can."""
    probe = folder / "probe"
    try:
        probe.write_bytes(bytes(_LIKELY_FULL))
        sync(probe)
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def _publish(folder: Path, target: Path, names: list[str]) -> None:
    """Give all files their names, ``target`` last: it never stands beside others' companions."""
    with ExitStack() as stack:
        for name in reversed(names):
            temporary = stack.enter_context(replacing(target.with_name(name)))
            (folder / name).replace(temporary)
        if len(names) > 1:
            target.unlink(missing_ok=True)
