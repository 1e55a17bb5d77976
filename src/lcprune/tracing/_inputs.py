"""What a model is called with: one example or several, positional and by keyword, nested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lcprune.errors import InputError
from lcprune.tracing._tree import map_tensors, named_tensors


@dataclass(frozen=True, init=False, eq=False)
class Inputs:
    """What a model is called with: ``model(*args, **kwargs)``.

    Example:
        Inputs(image, scale=2.0)
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)

    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, at any depth, in objects of any kind."""
        return [tensor for _, tensor in named_tensors([self.args, dict(self.kwargs)])]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same arguments with every tensor changed, in copies of what holds them."""
        args, kwargs = map_tensors((self.args, dict(self.kwargs)), change)
        return Inputs(*args, **kwargs)

    @property
    def batch(self) -> int:
        """The number of samples: the leading size of the first tensor with most dimensions.

        It is 0 where there is no tensor with dimensions, and where a list of images is given.
        """
        largest = max(self.tensors(), key=lambda tensor: tensor.dim(), default=None)
        if largest is None or not largest.dim() or any(map(_is_listed, self.args)):
            return 0
        return largest.shape[0]


ExampleInput = Tensor | Mapping[str, Any] | tuple[Any, ...] | list[Any] | Inputs
"""A tensor or a mapping is the one positional argument, a tuple all of them; a list holds several
examples."""


def as_examples(
    example_input: ExampleInput | None,
    example_kwargs: Mapping[str, Any] | None = None,
    name: str = "the example input",
) -> tuple[Inputs, ...]:
    """The examples that were given, one or more; ``InputError`` where there is none to run.

    ``example_kwargs`` are arguments by keyword, of every example; ``name`` is what errors call it.
    """
    if example_kwargs is not None and not (
        isinstance(example_kwargs, Mapping) and all(isinstance(k, str) for k in example_kwargs)
    ):
        raise InputError(
            f"example_kwargs is of type {_kind(example_kwargs)}; expected a dictionary by "
            "argument names"
        )
    if isinstance(example_input, list):
        if not example_input:
            raise InputError(f"{name} is an empty list; expected one or more examples")
        given = example_input
    else:
        given = [example_input]
    examples = tuple(_as_inputs(example, example_kwargs or {}, name) for example in given)
    for example in examples:
        _check_tensors(example.tensors(), name)
    return examples


def _as_inputs(example: Any, kwargs: Mapping[str, Any], name: str) -> Inputs:
    if isinstance(example, Inputs):
        return Inputs(*example.args, **{**kwargs, **example.kwargs})
    if example is None and kwargs:
        return Inputs(**kwargs)
    if isinstance(example, tuple):
        return Inputs(*example, **kwargs)
    if isinstance(example, Tensor | Mapping):
        return Inputs(example, **kwargs)
    if isinstance(example, list):
        raise InputError(f"{name} is a list within a list; {TAKES_LIST}")
    raise InputError(
        f"{name} is of type {_kind(example)}; expected a tensor, a dictionary, a tuple of "
        "positional arguments, lcprune.Inputs, or a list of several such"
    )


TAKES_LIST = "a list holds several examples: for a model that takes a list write ([…],)"


def _kind(value: Any) -> str:
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def _check_tensors(tensors: list[Tensor], name: str) -> None:
    for tensor in tensors:
        if tensor.is_meta:
            raise InputError(f"{name} is on the meta device; expected real tensors")
        if tensor.layout != torch.strided:
            kind = "nested" if tensor.is_nested else "sparse"
            raise InputError(f"{name} has a {kind} tensor; expected dense ones")
    if tensors and not any(tensor.numel() for tensor in tensors):
        shape = "x".join(map(str, tensors[0].shape))
        raise InputError(f"{name} has an empty tensor ({shape}) and no other; expected a sample")


def own(inputs: Inputs) -> Inputs:
    """The inputs for a model to keep: it may write into them."""
    with torch.inference_mode(False), torch.no_grad():
        return inputs.mapped(torch.clone)


FEW = 4
"""How many samples a model gets in training: statistics of two values magnify rounding."""

MANY = 12
"""How many samples a model gets that takes no four or two: a multiple of 2, 3, 4 and 6."""

MOST = 2**20
"""The most numbers that more than two samples may hold."""

MOST_ACTIVATIONS = 2**28
"""The most numbers that a model may compute of its samples: training holds them all, in float64."""


def training_forms(inputs: Inputs, activations: int = 0, seed: int = 0) -> tuple[Inputs, ...]:
    """What to run in training mode where only inputs for evaluation are known, best first.

    First ``FEW`` samples in place of one, all but the first with noise (a batch norm takes no
    single value), or two where these are too large or not taken, then ``MANY``, for models whose
    batches are triples, then the samples as they are, for models without a batch dimension; these
    first where even one is large. ``activations`` is how many numbers a model computes of the
    inputs. The noise has a generator of its own; integers are repeated.
    """
    size = inputs.batch
    generator = torch.Generator().manual_seed(seed)

    if any(map(_is_listed, inputs.args)):
        args = [
            [*arg, *(_noisy(x, generator) for x in arg)] if _is_listed(arg) else arg
            for arg in inputs.args
        ]
        return Inputs(*args, **inputs.kwargs), inputs

    def repeated(x: Tensor, times: int) -> Tensor:
        if not x.dim() or x.shape[0] != size:
            return x
        return torch.cat([x, *(_noisy(x, generator) for _ in range(times - 1))])

    with torch.inference_mode(False), torch.no_grad():
        numbers = sum(x.numel() for x in inputs.tensors())
        forms = [
            inputs.mapped(lambda x, times=times: repeated(x, times))  # type: ignore[misc]
            for times in (FEW, 2, MANY)
            if times == 2
            or (size == 1 and times * numbers <= MOST and times * activations <= MOST_ACTIVATIONS)
        ]
    return (inputs, *forms) if activations > MOST_ACTIVATIONS else (*forms, inputs)


def _is_listed(argument: Any) -> bool:
    """Whether an argument is a list of samples without a batch dimension, as detectors take it."""
    return (
        isinstance(argument, list)
        and bool(argument)
        and all(isinstance(x, Tensor) and 1 < x.dim() < 4 for x in argument)
    )


def _noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    """Other values of the same kind: within the range of ``x``, where it has one."""
    if not x.is_floating_point():
        return x
    low, high = x.amin(), x.amax()
    noise = torch.rand(x.shape, generator=generator).to(x) - 0.5
    if not bool(torch.isfinite(high - low)) or low == high:
        return x + noise
    moved = x + noise * (high - low) / 4
    # What would leave the range is reflected, so that no two values become the same limit.
    moved = torch.where(moved > high, 2 * high - moved, moved)
    return torch.where(moved < low, 2 * low - moved, moved)
