"""What the model's code asks for: calls as they are written, before PyTorch takes them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lcprune.tracing._decisions import Source
from lcprune.tracing._flow import LabelFlow
from lcprune.tracing._notes import Asked
from lcprune.tracing._planes import along, varying
from lcprune.tracing._sizes import Kept, SizedFloat, SizedInt, expression_of, plain
from lcprune.tracing._storages import LEAVES
from lcprune.tracing.rules.recurrent import CELLS, LAYERS, keep_hidden

CHUNKS = frozenset({"chunk", "tensor_split"})
SIZED = frozenset({"view", "reshape", "expand", "view_as", "reshape_as", "expand_as", "zeros",
                   "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_empty",
                   "new_full"})  # fmt: skip
"""Calls whose integers are the shape of their result, in order."""

LITERALS = frozenset({"tensor", "as_tensor", "asarray", "scalar_tensor", "new_tensor"})
"""Calls that make a tensor of the numbers that they get."""

TRUTHS = frozenset({"__bool__", "is_nonzero"})
FILLED = frozenset({"full", "new_full"})

SPLITS = frozenset({"split", "split_with_sizes"})
DROPOUTS = frozenset({"dropout1d", "dropout2d", "dropout3d", "feature_dropout", "feature_dropout_",
                      "feature_alpha_dropout", "feature_alpha_dropout_"})  # fmt: skip
"""Calls that multiply whole channels by a draw, whose size PyTorch gives them out of sight."""

NORMALISED = frozenset({"layer_norm", "rms_norm"})


class ReadFloat(float):
    """A number that was read from data; the module that compares it branches by data."""

    flow: LabelFlow
    source: Source

    def __new__(cls, value: float, flow: LabelFlow, source: Source) -> ReadFloat:
        self = super().__new__(cls, value)
        self.flow = flow
        self.source = source
        return self

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float(self),)

    __hash__ = float.__hash__


def _deciding(name: str) -> Callable[..., Any]:
    def apply(self: ReadFloat, *others: Any) -> Any:
        value = getattr(float, name)(self, *others)
        return value if value is NotImplemented else self.flow.decide(value, self.source)

    return apply


def _passing(name: str) -> Callable[..., Any]:
    def apply(self: ReadFloat, *others: Any) -> Any:
        value = getattr(float, name)(self, *others)
        return ReadFloat(value, self.flow, self.source) if isinstance(value, float) else value

    return apply


for _name in ("lt", "le", "gt", "ge", "eq", "ne", "bool", "int", "trunc", "floor", "ceil", "round"):
    setattr(ReadFloat, f"__{_name}__", _deciding(f"__{_name}__"))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(ReadFloat, f"__{_name}__", _passing(f"__{_name}__"))
    setattr(ReadFloat, f"__r{_name}__", _passing(f"__r{_name}__"))
for _name in ("neg", "abs", "pos"):
    setattr(ReadFloat, f"__{_name}__", _passing(f"__{_name}__"))


class CallWatch(TorchFunctionMode):
    """Gives shapes that remember their channels, and tells the flow what a call asks for."""

    def __init__(self, flow: LabelFlow) -> None:
        super().__init__()
        self.flow = flow

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if name in LEAVES and args and isinstance(args[0], Tensor):
            with self.flow.aside():
                self.flow.leave(args[0])
        if name == "size" or (name == "__get__" and func.__self__ is torch.Tensor.shape):
            with self.flow.aside():
                return self._sized(func(*args, **kwargs), *args, **kwargs)
        if name in DROPOUTS:
            with self.flow.aside():
                dropped = func(*args, **kwargs)
                self.flow.planes.set(dropped, self.flow.planes.of(args[0]))
            return dropped
        if name == "item" and args[0].is_floating_point():
            return self._read(func, args[0])
        if name == "__float__" and args[0].is_floating_point() and self._is_logged(args[0]):
            with self.flow.reading():
                return func(*args)
        if name in TRUTHS and args[0].dtype != torch.bool:
            return self._truth(func, args[0])
        if name == "scaled_dot_product_attention" and kwargs.get("scale") is None:
            with self.flow.aside():
                self._scaled_by_width(args[:2])
        if name in ("numel", "nelement"):
            with self.flow.aside():
                return self._number(func(*args, **kwargs), args[0])
        if func is functional.normalize:
            with self:
                return _normalized(*args, **kwargs)
        if func is functional.pad and "circular" in (*args[2:3], kwargs.get("mode")):
            with self:
                return _wrapped(args[0], kwargs.get("pad", args[1] if len(args) > 1 else ()))
        if name in NORMALISED and len(args) > 1:
            with self.flow.aside():
                self._normalised(args[0], args[1])
        if name.endswith("_as") and len(args) == 2:
            with self.flow.aside():
                asked = _asked(name, tuple(self._sized(args[1].shape, args[1])), {})
        else:
            asked = _asked(name, args, kwargs)
        recurrent = name in LAYERS or name in CELLS
        if recurrent:
            with self.flow.aside():
                keep_hidden(self.flow, name, args)
        notes = self.flow.notes
        if name != "__get__":
            for number in asked.values:
                notes.use(number)
        before, notes.asked = notes.asked, asked
        try:
            with _taken_apart() if recurrent else nullcontext():
                return func(*args, **kwargs)
        finally:
            notes.asked = before

    def _read(self, func: Any, tensor: Tensor) -> Any:
        """A number that is read for a log or a scale, and decides only where it is compared."""
        with self.flow.reading():
            value = func(tensor)
        source = self.flow.data.source(tensor)
        return ReadFloat(value, self.flow, source) if source else value

    def _is_logged(self, tensor: Tensor) -> bool:
        """Whether a number is read for a log rather than for a decision."""
        return self.flow.training and not self.flow.data.is_drawn(tensor)

    def _truth(self, func: Any, tensor: Tensor) -> Any:
        """Whether a number is not zero."""
        with self.flow.reading():
            value = func(tensor)
        source = self.flow.data.source(tensor)
        return self.flow.decide(value, source) if source else value

    def _scaled_by_width(self, tensors: Iterable[Tensor]) -> None:
        """Attention without a scale divides by the root of the number of channels."""
        for tensor in tensors:
            plane = along(self.flow.planes.of(tensor), tensor.dim() - 1)
            if plane is not None:
                self.flow.notes.scaled.add(self.flow.running.name)
                self.flow.labels.pin(
                    plane, f"the scale of attention follows them in {self.flow.running.title}"
                )

    def _normalised(self, tensor: Tensor, shape: Any) -> None:
        """The shape that a norm is given must be that of the channels that it norms."""
        plane = along(self.flow.planes.of(tensor), tensor.dim() - 1)
        if len(shape) == 1 and plane is not None and varying(plane) == {tensor.dim() - 1}:
            self.flow.notes.require(
                plane.reshape(-1), expression_of(shape[0]), f"a norm in {self.flow.running.title}"
            )

    def _sized(self, value: Any, tensor: Tensor, dim: Any = None) -> Any:
        """A shape, or one size of it, of integers that remember their channels."""
        planes = self.flow.planes.of(tensor)
        if not planes or not isinstance(value, int | torch.Size):
            return value
        if isinstance(value, int):
            return self._one(value, planes, dim % tensor.dim())
        return torch.Size([self._one(size, planes, d) for d, size in enumerate(value)])

    def _number(self, value: int, tensor: Tensor) -> int:
        """How many elements a tensor has, as the product of its sizes.

        That of a draw makes up for what the draw has left out: a plain number, in a masked run of
        the elements that are left, over which sums are taken there.
        """
        drawn = self.flow.data.is_drawn(tensor)
        number = value
        for size in self._sized(tensor.shape, tensor):
            if isinstance(size, SizedInt):
                number = number // int(size) * (self._left(size) if drawn else size)
        return number

    def _left(self, size: SizedInt) -> int:
        """How many of the channels that a size counts are kept."""
        counted = size.expression
        kept = self.flow.mask.kept(counted.labels) if isinstance(counted, Kept) else None
        return int(size) if kept is None else int(kept.sum())

    def _one(self, size: int, planes: tuple[Tensor, ...], dim: int) -> int:
        plane = along(planes, dim)
        if plane is None or varying(plane) != {dim}:
            return size
        return SizedInt(size, Kept(plane.reshape(-1)))


@contextmanager
def _taken_apart() -> Iterator[None]:
    """A context in which recurrent layers run as the matrix products that they are made of."""
    cpu, cuda = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    torch._C._set_cudnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(cpu)
        torch._C._set_cudnn_enabled(cuda)


def _normalized(
    input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """What ``functional.normalize`` computes, without the expansion in which sizes are lost."""
    norm = torch.linalg.vector_norm(input, p, dim, keepdim=True).clamp_min(eps)
    return torch.div(input, norm, out=out)


def _wrapped(input: Tensor, pad: Sequence[int]) -> Tensor:
    """What a circular ``functional.pad`` computes, without the empty tensor that it fills."""
    for i in range(len(pad) // 2):
        dim, (before, after) = input.dim() - 1 - i, (int(n) for n in pad[2 * i : 2 * i + 2])
        size = input.shape[dim]
        if min(before, after) < 0 or max(before, after) > size:
            return functional.pad(input, pad[2 * i :], mode="circular")
        parts = (
            input.narrow(dim, size - before, before),
            input,
            input.narrow(dim, 0, after),
        )
        input = torch.cat([part for part in parts if part.shape[dim]], dim)
    return input


def _asked(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Asked:
    numbers = list(_numbers([*args, *kwargs.values()]))
    shape = None
    if name in SIZED:
        sizes = kwargs.get("size", kwargs.get("shape", args))
        shape = tuple(n for n in _numbers(sizes) if isinstance(n, int))
    sized: dict[float, SizedInt | SizedFloat] = {
        plain(n): n for n in reversed(numbers) if isinstance(n, SizedInt | SizedFloat)
    }
    sections: tuple[int, ...] = ()
    if name in SPLITS and len(args) > 1 and isinstance(args[1], list | tuple):
        sections = tuple(args[1])
    given = _numbers(kwargs.get("pad", args[1:2])) if name == "pad" else ()
    amounts = tuple(n for n in given if isinstance(n, int))
    values = tuple(
        n.expression
        for n in numbers
        if isinstance(n, SizedFloat) or (isinstance(n, SizedInt) and name in LITERALS)
    )
    if name in FILLED and isinstance(filled := kwargs.get("fill_value", args[-1]), SizedInt):
        values += (filled.expression,)
    return Asked(shape, sections, sized, name in CHUNKS, amounts, values)


def _numbers(tree: Any) -> Iterator[int | float]:
    if isinstance(tree, int | float):
        if not isinstance(tree, bool):
            yield tree
    elif isinstance(tree, slice):
        yield from _numbers([tree.start, tree.stop])
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _numbers(item)
