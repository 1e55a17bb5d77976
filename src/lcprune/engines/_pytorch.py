"""PyTorch itself: a pt2 archive of torch.export, without pickle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from lcprune._text import one_line
from lcprune.engines._capture import captured, quiet, taken_by
from lcprune.engines._engine import Case, Engine, Opened, output_tensors
from lcprune.engines._onnx import noise
from lcprune.engines._parity import with_folded_norms
from lcprune.engines._timing import with_threads
from lcprune.engines._units import Node, Operator
from lcprune.errors import InputError, ModelError
from lcprune.tracing import Inputs


class PyTorch:
    """PyTorch's own operators, one after the other; batch norms are folded."""

    name = "pytorch"
    format = "pt2"
    suffix = ".pt2"
    packages: tuple[str, ...] = ()
    runtime = "torch"
    int8_packages: tuple[str, ...] = ()

    def write(
        self,
        model: nn.Module,
        example: Inputs,
        path: Path,
        *,
        dynamic_batch: bool = False,
        int8: Sequence[Case] | None = None,
    ) -> None:
        if int8 is not None:
            raise InputError("pt2 files are not written in int8")
        program = captured(with_folded_norms(model, example), example, dynamic_batch=dynamic_batch)
        content = BytesIO()
        with taken_by(self.format):
            torch.export.save(program, content)
        path.write_bytes(content.getbuffer())

    def open(self, path: Path, threads: int = 1) -> Opened:
        with quiet():
            program = torch.export.load(path)
            module: Any = program.module()
        structure = program.call_spec.in_spec

        def run(*tensors: Tensor) -> list[Tensor]:
            args, kwargs = tree_unflatten(tensors, structure)
            with with_threads(threads), torch.no_grad():
                return output_tensors(module(*args, **kwargs))

        return run

    def operator(self, operator: Operator, threads: int = 1) -> Callable[[], object]:
        tensors: list[Tensor | None] = [None] * len(operator.shapes)
        for position in (*operator.inputs, *operator.states):
            tensors[position] = torch.from_numpy(noise(operator.shapes[position]).copy())
        calls = [(node.write, _call(node, tensors, operator)) for node in operator.nodes]

        def run() -> None:
            with with_threads(threads), torch.no_grad():
                for write, call in calls:
                    tensors[write] = call()

        try:
            run()
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            kinds = ", ".join(node.kind for node in operator.nodes)
            raise ModelError(f"no single {kinds} can be timed: {one_line(error)}") from error
        return run


def _call(node: Node, tensors: list[Tensor | None], operator: Operator) -> Callable[[], Tensor]:
    """An operator of aten's on what is at its positions when it is called; its first result."""
    packet = getattr(torch.ops.aten, node.kind, None)
    settings = {**node.settings, **_following(node, operator)}
    for name in packet.overloads() if packet is not None else ():
        overload = getattr(packet, name)
        places = _places(overload._schema, node, settings)
        if places is not None:
            return partial(_run, overload, places, tensors)
    raise ModelError(f"no single {node.kind} can be timed")


_Places = list[tuple[str, str, Any]]
"""Of each argument its name, where it is by keyword, what it is, and which."""


def _run(overload: Any, places: _Places, tensors: list[Tensor | None]) -> Tensor:
    given: list[Any] = []
    named: dict[str, Any] = {}
    for name, how, at in places:
        value = at
        if how == "tensor":
            value = tensors[at]
        elif how == "list":
            value = [tensors[n] for n in at]
        if name:
            named[name] = value
        else:
            given.append(value)
    found = overload(*given, **named)
    first: Tensor = found if isinstance(found, Tensor) else found[0]
    return first


def _places(schema: Any, node: Node, settings: dict[str, Any]) -> _Places | None:
    """What each argument is: a tensor's position, a list of them, or a value; none: no match."""
    left = list(node.reads)
    unused = set(settings)
    found: _Places = []
    for argument in schema.arguments:
        if argument.is_out:
            return None
        kind, name = str(argument.type), argument.name if argument.kwarg_only else ""
        if kind == "List[Tensor]":
            found.append((name, "list", left))
            left = []
        elif "Tensor" in kind and left:
            found.append((name, "tensor", left.pop(0)))
        elif argument.name in settings:
            found.append((name, "value", settings[argument.name]))
            unused.discard(argument.name)
        elif kind == "Optional[Tensor]":
            found.append((name, "value", None))
        elif not argument.has_default_value():
            return None
        elif not name:
            found.append((name, "value", argument.default_value))
    return None if left or unused else found


def _following(node: Node, operator: Operator) -> dict[str, Any]:
    """The settings that the shapes say, which change with the widths."""
    if not node.reads or node.kind not in ("constant_pad_nd", "native_layer_norm", "slice"):
        return {}
    shape, wanted = operator.shapes[node.reads[0]], operator.shapes[node.write]
    if node.kind == "native_layer_norm":
        of = len(node.settings["normalized_shape"])
        return {"normalized_shape": list(shape[-of:])}
    if node.kind == "slice":
        dim, step = int(node.settings.get("dim", 0)), int(node.settings.get("step", 1))
        return {"start": 0, "end": (wanted[dim] - 1) * step + 1}
    pads = [
        n
        for a, b in zip(shape, wanted, strict=True)
        for n in ((b - a) - (b - a) // 2, (b - a) // 2)
    ]
    return {"pad": pads[::-1]}


ENGINE: Engine = PyTorch()
