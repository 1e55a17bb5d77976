"""A network as torch.export follows it, which all engines take, and what they say against it."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from lcprune._text import one_line
from lcprune.errors import InputError, LcpruneError, ModelError
from lcprune.tracing import Inputs

# The innermost error names the operator; the outer ones only the node that it is at.
_OPERATORS = (
    re.compile(r"OpOverload\(op='([\w.:]+)'"),
    re.compile(r"No conversion rule found for operations?: ([\w.:]+)"),
    re.compile(r"\b((?:aten|prims|torchvision|quantized)::\w+)"),
    re.compile(r"\btorch\.ops\.(\w+\.\w+)"),
    re.compile(r"\b((?:aten|prims|torchvision)\.\w+)"),
)
_COLOURS = re.compile(r"\x1b\[[\d;]*m")


def captured(model: nn.Module, example: Inputs, *, dynamic_batch: bool) -> ExportedProgram:
    """The operators that ``model`` runs on the example, with any batch size where asked for.

    It holds neither values of the example's tensors nor lines of the model's source; what is no
    tensor among the arguments is a constant. ``ModelError`` where
    torch.export can't follow the model, ``InputError`` where there is no batch dimension.
    """
    model, example = _of_tensors(model, example)
    shapes = None
    if dynamic_batch:
        # A size of one would be taken as a constant, and two equal ones as one tensor's.
        example = batched(example, 2)
        batch = torch.export.Dim("batch")
        shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
        for tensor in _with_batch(example):
            shapes[tensor] = {0: batch}
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                model,
                example.args,
                dict(example.kwargs),
                dynamic_shapes=shapes,
                strict=False,
            )
    except Exception as error:
        what = " with any batch size" if dynamic_batch else ""
        raise ModelError(f"torch.export can't follow the model{what}: {_told(error)}") from error
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)
    program._example_inputs = None
    return program


class _Bound(nn.Module):
    """A model whose arguments are tensors alone; all else is as it was in the example."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        super().__init__()
        self.model = model
        self._leaves, self._structure = tree_flatten((example.args, dict(example.kwargs)))
        self._leaves = [None if isinstance(x, Tensor) else (x,) for x in self._leaves]

    def forward(self, *tensors: Tensor) -> Any:
        left = iter(tensors)
        leaves = [next(left) if held is None else held[0] for held in self._leaves]
        args, kwargs = tree_unflatten(leaves, self._structure)
        return self.model(*args, **kwargs)


def _of_tensors(model: nn.Module, example: Inputs) -> tuple[nn.Module, Inputs]:
    leaves = tree_leaves((example.args, dict(example.kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(tensors) == len(leaves):
        return model, example
    return _Bound(model, example).eval(), Inputs(*tensors)


def batched(example: Inputs, size: int, seed: int | None = None) -> Inputs:
    """The example with ``size`` samples, its own in turn, and with noise where there is a seed.

    ``InputError`` where it has no batch dimension.
    """
    of = example.batch
    if not of:
        raise InputError("the example input has no batch dimension, expected one to be dynamic")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    rows = torch.arange(size) % of

    def change(x: Tensor) -> Tensor:
        if x.dim() and x.shape[0] == of:
            x = x.index_select(0, rows)
        return noisy(x, generator)

    return example.mapped(change)


def noisy(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Values like those of ``x`` where it holds real numbers, else a copy of it."""
    if generator is None or not x.is_floating_point() or not x.numel():
        return x.clone()
    scale = float(x.double().std(correction=0)) or 1.0
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return (x.double() + scale * noise).to(x.dtype)


def _with_batch(example: Inputs) -> list[Tensor]:
    return [x for x in example.tensors() if x.dim() and x.shape[0] == example.batch]


@contextmanager
def taken_by(name: str) -> Iterator[None]:
    """Within, what an exporter raises is a ``ModelError`` that names the operator, in one line.

    What it prints, logs and warns of reaches no terminal. Errors of files pass.
    """
    try:
        with quiet():
            yield
    except (LcpruneError, OSError, MemoryError):
        raise
    except Exception as error:
        operator = _operator(error)
        if operator:
            raise ModelError(
                f"{name} can't take the operator {operator} of the model, expected one that it has"
            ) from error
        raise ModelError(f"{name} can't take the model: {_told(error)}") from error


def _operator(error: BaseException) -> str:
    texts: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(texts) < 20:
        texts.append(_COLOURS.sub("", str(seen)))
        seen = seen.__cause__ or seen.__context__
    for pattern in _OPERATORS:
        for text in reversed(texts):
            found = pattern.search(text)
            if found:
                return found[1]
    return ""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(_COLOURS.sub('', str(error)), 200)}"


@contextmanager
def quiet() -> Iterator[None]:
    """Within, nothing is printed, logged or warned of, by Python or by libraries beneath it."""
    level = logging.root.manager.disable
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, level)
        logging.disable(logging.CRITICAL)
        stack.enter_context(_closed_descriptor(2))
        stack.enter_context(redirect_stdout(StringIO()))
        stack.enter_context(redirect_stderr(StringIO()))
        yield


@contextmanager
def _closed_descriptor(number: int) -> Iterator[None]:
    """Within, what is written to a descriptor goes nowhere: C++ knows no ``sys.stderr``."""
    try:
        kept = os.dup(number)
    except OSError:  # it is not there
        yield
        return
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    nowhere: Any = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, number)
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)
        os.close(nowhere)
